"""The variants of a suite: what is made of the dense network, from which variant it goes on, and where that is done.

A kind is its class: one more class here, named in KINDS, and the module its `place` names is all that a method takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, Union, get_args

from pydantic import Field, model_validator

from trtbench.precision import PRECISIONS
from trtbench.suite.base import Count, Few, Fraction, Name, Part, PositiveFraction, Seed
from trtbench.suite.inputs import TrainConfig

Bits = Annotated[int, Field(ge=1, le=8)] | Literal["ternary"]
BatchNorm = Literal["keep", "recalibrate", "validation"]
_BATCH_NORM_HELP = (
    "statistics after pruning; validation: measured anew only if that gets more validation images right, "
    "the default of second-order without fine-tuning; else keep"
)
_METHOD_HELP = "what says which weights go: their size, or the curvature of the loss on training images"
_EXCLUDE_HELP = "layers whose name contains one of these keep all weights"


class VariantPart(Part):
    """What all variants have: a name, the network they start from, and whether they are fine-tuned.

    Attributes:
        makes: what comes of the method; nothing can go on from a graph, and PyTorch has no network of it.
        place: module:function of the method.
        packages: distributions whose version decides the result.
    """

    makes: ClassVar[Literal["network", "graph"]] = "network"
    usual_budget: ClassVar[TrainConfig | None] = None  # of a suite that says none and trains nothing else
    place: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()

    kind: str
    name: Name = Field(description="unique in the suite")
    after: str | None = Field(None, description="the variant, named before, whose network this starts from")
    fine_tune: bool = Field(default=False, description="train it by the suite's `fine_tune` budget")
    budget: TrainConfig | None = Field(
        None, description="its own in place of the suite's `fine_tune`, which says what this does not; the row tells it"
    )

    @model_validator(mode="after")
    def _a_budget_is_spent(self) -> Self:
        if self.budget is not None and not self.fine_tune:
            raise ValueError("fine_tune with a budget")
        return self

    def settled(self, *, builds_int8: bool) -> Self:  # noqa: ARG002  for the kinds that depend on it
        """Return the variant with the defaults filled in that depend on the rest of the suite."""
        return self

    def reads_images(self) -> bool:
        """Say whether training images decide the result, beside those of a fine-tuning."""
        return False

    @property
    def circumstances(self) -> tuple[str, ...]:
        """What of its key says with what it is made, as recipes ask it."""
        return self.packages

    @property
    def is_identity(self) -> bool:
        """Whether it is the network it starts from, as it is."""
        return False


class DenseVariant(VariantPart):
    """The network as it is; with `fine_tune` it is the control every compressed variant is compared with.

    After another variant it is that variant's network, fine-tuned once more.
    """

    place: ClassVar[str] = "trtbench.compress.weights:keep"

    kind: Literal["dense"]

    @property
    def is_identity(self) -> bool:
        """Whether it is the network it starts from, as it is."""
        return not self.fine_tune


class ChannelsVariant(VariantPart):
    """Structured channel pruning (torch-pruning); exactly one of `ratio`, `macs`, `params` is the target."""

    place: ClassVar[str] = "trtbench.compress.channels:remove_channels"
    packages: ClassVar[tuple[str, ...]] = ("torch-pruning",)

    kind: Literal["channels"]
    ratio: Fraction | None = Field(None, description="share of the channels of each layer that go")
    macs: PositiveFraction | None = Field(None, description="target: MACs as a share of the dense network's")
    params: PositiveFraction | None = Field(None, description="target: parameters as a share of the dense network's")
    importance: Literal["l2", "l1", "bn-scale", "taylor", "hessian", "lamp"] = Field(
        "l2", description="what ranks the channels; taylor and hessian look at training images"
    )
    scope: Literal["uniform", "global"] = Field(
        "uniform", description="the same share of every layer, or the least important of the whole network"
    )
    steps: Few = Field(1, description="iterative steps to the target")
    round_to: Few | None = Field(None, description="widths become multiples of this; 16 where int8 is built, else 8")
    fine_tune: bool = Field(default=True, description="train it by the suite's `fine_tune` budget")

    @model_validator(mode="after")
    def _one_target(self) -> ChannelsVariant:
        if sum(target is not None for target in (self.ratio, self.macs, self.params)) != 1:
            raise ValueError("exactly one of ratio, macs, params")
        return self

    def settled(self, *, builds_int8: bool) -> ChannelsVariant:
        """Return it with widths that the tensor cores of the precisions built like."""
        built = PRECISIONS["int8" if builds_int8 else "fp32"]
        return self.model_copy(update={"round_to": self.round_to or built.channel_step})

    def reads_images(self) -> bool:
        """Say whether its importance is of gradients, which are those of training images."""
        return self.importance in {"taylor", "hessian"}


class SparseVariant(VariantPart):
    """What all variants share that set weights to zero and keep them there."""

    method: Literal["magnitude", "second-order"] = Field("magnitude", description=_METHOD_HELP)
    passes: Literal[0, 1, 2, 3, 4] = Field(1, description="second-order: sequential reconstructions afterwards")
    exclude: tuple[str, ...] = Field((), description=_EXCLUDE_HELP)
    batch_norm: BatchNorm | None = Field(None, description=_BATCH_NORM_HELP)
    images: Count | None = Field(
        None,
        description="training images that second-order looks at; 3,000 of 32x32 pixels, fewer of larger",
    )
    seed: Seed = Field(0, description="seed of their choice")

    @property
    def is_second_order(self) -> bool:
        """Whether the weights go by their curvature, which is that of training images."""
        return self.method == "second-order"

    def settled(self, *, builds_int8: bool) -> Self:  # noqa: ARG002  as in every variant
        """Return it with the choice of batch-norm statistics made."""
        default: BatchNorm = "validation" if self.is_second_order and not self.fine_tune else "keep"
        return self.model_copy(update={"batch_norm": self.batch_norm or default})

    def reads_images(self) -> bool:
        """Say whether its curvature, or its batch norms, are those of training images."""
        return self.is_second_order or self.batch_norm != "keep"


class WeightsVariant(SparseVariant):
    """Unstructured pruning of single weights; `sparsity`, or `per_round` and `rounds`, is the target."""

    place: ClassVar[str] = "trtbench.compress.weights:prune_weights"

    kind: Literal["weights"]
    sparsity: Fraction | None = Field(None, description="share of the weights that go")
    per_round: Fraction | None = Field(None, description="share g of what is left that each round takes: 1 - (1 - g)^n")
    rounds: Few = Field(1, description="global magnitude: rounds to the target")
    scope: Literal["global", "layer"] = Field(
        "global", description="the target is of the whole network, or of every layer alike"
    )
    schedule: Literal["one-shot", "iterative", "cubic"] = Field(
        "one-shot", description="iterative and cubic prune while the network is fine-tuned"
    )
    ramp: Count = Field(10, description="iterative and cubic: epochs until the sparsity is reached")
    every: Count = Field(100, description="cubic: steps between two masks")
    steps: Few = Field(12, description="second-order: steps to the target")

    @model_validator(mode="after")
    def _one_target(self) -> WeightsVariant:
        if (self.sparsity is None) == (self.per_round is None):
            raise ValueError("exactly one of sparsity, per_round")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> WeightsVariant:
        is_magnitude = self.method == "magnitude"
        if self.rounds > 1 and not (is_magnitude and self.scope == "global" and self.schedule == "one-shot"):
            raise ValueError("rounds with method magnitude, scope global and schedule one-shot")
        if self.schedule != "one-shot" and not (is_magnitude and self.fine_tune):
            raise ValueError("fine_tune and method magnitude with a schedule that prunes while it trains")
        return self

    @property
    def target(self) -> float:
        """The share of the weights that go in the end."""
        if self.sparsity is not None:
            return self.sparsity
        assert self.per_round is not None, "one of the two is given"
        return float(1 - (1 - self.per_round) ** self.rounds)


class NmVariant(SparseVariant):
    """N:M sparsity: of every M weights along the input channels at most N are not zero (2:4: sparse tensor cores)."""

    place: ClassVar[str] = "trtbench.compress.nm:prune_nm"

    kind: Literal["nm"]
    pattern: str = Field("2:4", pattern=r"^[1-9]\d{0,2}:[1-9]\d{0,2}$", description="N:M")

    @model_validator(mode="after")
    def _leaves_some_out(self) -> NmVariant:
        kept, of = self.kept_of
        if kept >= of:
            raise ValueError("a pattern N:M with N below M")
        return self

    @property
    def kept_of(self) -> tuple[int, int]:
        """N and M."""
        kept, _, of = self.pattern.partition(":")
        return int(kept), int(of)


class FixedPointVariant(VariantPart):
    """Weights of 8 bits to 1; with `fine_tune` the network learns with them rounded (straight-through estimator).

    `asymmetric` and `symmetric` are the source study's quantizers and nothing more; `best` is per channel, aligned with
    zero, rebuilt layer by layer on training images, and learns its steps.
    """

    usual_budget: ClassVar[TrainConfig | None] = TrainConfig(epochs=10, lr=0.002)
    place: ClassVar[str] = "trtbench.compress.fixed_point:quantize"

    kind: Literal["fixed_point"]
    bits: Bits = Field(4, description="of each weight: 8 to 1 (1 is binary), or ternary")
    scheme: Literal["asymmetric", "symmetric", "best"] = Field(
        "best", description="best, or the source study's asymmetric or symmetric"
    )
    activations: Annotated[int, Field(ge=2, le=8)] | None = Field(None, description="bits of what flows into a layer")
    images: Count = Field(512, description="training images that `best` looks at")
    seed: Seed = Field(0, description="of the choice of these images")

    @model_validator(mode="after")
    def _source_schemes_have_levels(self) -> FixedPointVariant:
        if self.bits == "ternary" and self.scheme != "best":
            raise ValueError("scheme best with ternary: the source study's quantizers have 2^bits levels")
        return self

    def reads_images(self) -> bool:
        """Say whether its layers are rebuilt, or its activations measured, on training images."""
        return self.scheme == "best" or self.activations is not None


class QatVariant(VariantPart):
    """INT8 aware training by the suite's `fine_tune` budget, on the Q/DQ graph and scales of the int8 export."""

    usual_budget: ClassVar[TrainConfig | None] = TrainConfig(epochs=5, lr=0.001)  # 0.01 loses all: norms are folded
    makes: ClassVar[Literal["network", "graph"]] = "graph"
    place: ClassVar[str] = "trtbench.compress.qat:learn"
    packages: ClassVar[tuple[str, ...]] = ("onnx",)

    kind: Literal["qat"]
    fine_tune: bool = Field(default=True, description="train it by the suite's `fine_tune` budget")

    def reads_images(self) -> bool:
        """Say that it learns within the ranges that calibration images give."""
        return True


class DynamicInt8Variant(VariantPart):
    """Linear layers in INT8 with ranges taken at run time (ONNX Runtime); convolutions stay in float."""

    makes: ClassVar[Literal["network", "graph"]] = "graph"
    place: ClassVar[str] = "trtbench.compress.dynamic_int8:quantize"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxruntime-gpu")

    kind: Literal["dynamic_int8"]


class StrippedVariant(VariantPart):
    """The float graph under the Q/DQ pairs that an ONNX file came with: ours beside them, from weights rounded once."""

    makes: ClassVar[Literal["network", "graph"]] = "graph"
    place: ClassVar[str] = "trtbench.compress.dynamic_int8:strip"
    packages: ClassVar[tuple[str, ...]] = ("onnx",)

    kind: Literal["stripped"]


class CodecVariant(VariantPart):
    """Deep compression (Han et al. 2016): the network as its packed file gives it back."""

    place: ClassVar[str] = "trtbench.compress.codec:share"
    packages: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    kind: Literal["codec"]
    clusters: Annotated[int, Field(ge=1, lt=4096)] | None = Field(16, description="values that a layer's weights share")
    half: bool = Field(default=False, description="round what is left in float to half precision")


KINDS: tuple[type[VariantPart], ...] = (
    DenseVariant,
    ChannelsVariant,
    WeightsVariant,
    NmVariant,
    FixedPointVariant,
    QatVariant,
    DynamicInt8Variant,
    StrippedVariant,
    CodecVariant,
)
VARIANT_KINDS: tuple[str, ...] = tuple(get_args(one.model_fields["kind"].annotation)[0] for one in KINDS)


def one_of(kinds: tuple[type[VariantPart], ...]) -> Any:
    """Return the type of a field that holds a variant of any of these kinds."""
    return Annotated[Union[kinds], Field(discriminator="kind")]  # noqa: UP007  a tuple of classes takes no |


if TYPE_CHECKING:
    Variant: TypeAlias = VariantPart
else:
    Variant = one_of(KINDS)
