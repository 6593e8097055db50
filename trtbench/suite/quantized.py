"""The variants of fewer bits: fixed-point weights, INT8 aware training, dynamic INT8 and shared weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trtbench.suite.base import PositiveInt  # noqa: TC001  pydantic resolves the fields at run time
from trtbench.suite.variants import VariantPart

Bits = Annotated[int, Field(ge=1, le=8)] | Literal["ternary"]


class FixedPointVariant(VariantPart):
    """Weights of 8 bits to 1; with `fine_tune` the network learns with them rounded (straight-through estimator).

    `asymmetric` and `symmetric` are the source study's quantizers and nothing more; `best` is per channel, aligned with
    zero, rebuilt layer by layer on training images, and learns its steps.
    """

    kind: Literal["fixed_point"]
    bits: Bits = Field(4, description="of each weight: 8 to 1 (1 is binary), or ternary")
    scheme: Literal["asymmetric", "symmetric", "best"] = Field(
        "best", description="best, or the source study's asymmetric or symmetric"
    )
    activations: Annotated[int, Field(ge=2, le=8)] | None = Field(None, description="bits of what flows into a layer")
    images: PositiveInt = Field(512, description="training images that `best` looks at")
    seed: int = Field(0, description="of the choice of these images")

    @model_validator(mode="after")
    def _source_schemes_have_levels(self) -> FixedPointVariant:
        if self.bits == "ternary" and self.scheme != "best":
            raise ValueError("scheme best with ternary: the source study's quantizers have 2^bits levels")
        return self


class QatVariant(VariantPart):
    """INT8 aware training by the suite's `fine_tune` budget, on the Q/DQ graph and scales of the int8 export."""

    kind: Literal["qat"]


class DynamicInt8Variant(VariantPart):
    """Linear layers in INT8 with ranges taken at run time (ONNX Runtime); convolutions stay in float."""

    kind: Literal["dynamic_int8"]


class CodecVariant(VariantPart):
    """Deep compression (Han et al. 2016): the network as its packed file gives it back."""

    kind: Literal["codec"]
    clusters: Annotated[int, Field(ge=1, lt=4096)] | None = Field(16, description="values that a layer's weights share")
    half: bool = Field(default=False, description="round what is left in float to half precision")


# Their result is a graph: nothing can go on from it, and PyTorch has no network of it.
GRAPH_KINDS = frozenset({"qat", "dynamic_int8"})
