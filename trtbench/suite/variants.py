"""The variants of a suite: what is made of the dense network, and from which variant it goes on."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trtbench.suite.base import Fraction, Name, Part, PositiveFraction, PositiveInt


class VariantPart(Part):
    """What all variants have: a name, the network they start from, and whether they are fine-tuned."""

    name: Name
    after: str | None = Field(None, description="the variant, named before, whose network this starts from")
    fine_tune: bool = False

    def settled(self, *, builds_int8: bool) -> Self:  # noqa: ARG002  for the kinds that depend on it
        """Return the variant with the defaults filled in that depend on the rest of the suite."""
        return self


class DenseVariant(VariantPart):
    """The network as it is; with `fine_tune` it is the control every compressed variant is compared with.

    After another variant it is that variant's network, fine-tuned once more.
    """

    kind: Literal["dense"]


class ChannelsVariant(VariantPart):
    """Structured channel pruning (torch-pruning); exactly one of `ratio`, `macs`, `params` is the target."""

    kind: Literal["channels"]
    ratio: Fraction | None = Field(None, description="share of the channels of each layer that go")
    macs: PositiveFraction | None = Field(None, description="target: MACs as a share of the dense network's")
    params: PositiveFraction | None = Field(None, description="target: parameters as a share of the dense network's")
    importance: Literal["l2", "l1", "bn-scale", "taylor", "lamp"] = "l2"
    scope: Literal["uniform", "global"] = "uniform"
    steps: PositiveInt = Field(1, description="iterative steps to the target")
    round_to: PositiveInt | None = Field(
        None, description="widths become multiples of this; 16 where int8 is built, else 8"
    )
    fine_tune: bool = True

    @model_validator(mode="after")
    def _one_target(self) -> ChannelsVariant:
        if sum(target is not None for target in (self.ratio, self.macs, self.params)) != 1:
            raise ValueError("exactly one of ratio, macs, params")
        return self

    def settled(self, *, builds_int8: bool) -> ChannelsVariant:
        """Return it with widths that the tensor cores of the precisions built like."""
        return self.model_copy(update={"round_to": self.round_to or (16 if builds_int8 else 8)})
