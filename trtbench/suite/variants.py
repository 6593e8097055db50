"""The variants of a suite: what is made of the dense network, and from which variant it goes on."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trtbench.suite.base import Fraction, Name, Part, PositiveFraction, PositiveInt

BatchNorm = Literal["keep", "recalibrate", "validation"]
_BATCH_NORM_HELP = (
    "statistics after pruning; validation: measured anew only if that gets more validation images right, "
    "the default of second-order without fine-tuning; else keep"
)
_METHOD_HELP = "what says which weights go: their size, or the curvature of the loss on training images"
_EXCLUDE_HELP = "layers whose name contains one of these keep all weights"


class VariantPart(Part):
    """What all variants have: a name, the network they start from, and whether they are fine-tuned."""

    name: Name = Field(description="unique in the suite")
    after: str | None = Field(None, description="the variant, named before, whose network this starts from")
    fine_tune: bool = Field(default=False, description="train it by the suite's `fine_tune` budget")

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
    importance: Literal["l2", "l1", "bn-scale", "taylor", "hessian", "lamp"] = Field(
        "l2", description="what ranks the channels; taylor and hessian look at training images"
    )
    scope: Literal["uniform", "global"] = Field(
        "uniform", description="the same share of every layer, or the least important of the whole network"
    )
    steps: PositiveInt = Field(1, description="iterative steps to the target")
    round_to: PositiveInt | None = Field(
        None, description="widths become multiples of this; 16 where int8 is built, else 8"
    )
    fine_tune: bool = Field(default=True, description="train it by the suite's `fine_tune` budget")

    @model_validator(mode="after")
    def _one_target(self) -> ChannelsVariant:
        if sum(target is not None for target in (self.ratio, self.macs, self.params)) != 1:
            raise ValueError("exactly one of ratio, macs, params")
        return self

    def settled(self, *, builds_int8: bool) -> ChannelsVariant:
        """Return it with widths that the tensor cores of the precisions built like."""
        return self.model_copy(update={"round_to": self.round_to or (16 if builds_int8 else 8)})


class SparseVariant(VariantPart):
    """What all variants share that set weights to zero and keep them there."""

    exclude: tuple[str, ...] = Field((), description=_EXCLUDE_HELP)
    batch_norm: BatchNorm | None = Field(None, description=_BATCH_NORM_HELP)
    images: PositiveInt | None = Field(
        None,
        description="training images that second-order looks at; 3,000 of 32x32 pixels, fewer of larger",
    )
    seed: int = Field(0, description="seed of their choice")

    def with_batch_norm(self, *, is_second_order: bool) -> Self:
        """Return it with the choice of batch-norm statistics made."""
        default: BatchNorm = "validation" if is_second_order and not self.fine_tune else "keep"
        return self.model_copy(update={"batch_norm": self.batch_norm or default})


class WeightsVariant(SparseVariant):
    """Unstructured pruning of single weights; `sparsity`, or `per_round` and `rounds`, is the target."""

    kind: Literal["weights"]
    sparsity: Fraction | None = Field(None, description="share of the weights that go")
    per_round: Fraction | None = Field(None, description="share g of what is left that each round takes: 1 - (1 - g)^n")
    rounds: PositiveInt = Field(1, description="global magnitude: rounds to the target")
    method: Literal["magnitude", "second-order"] = Field("magnitude", description=_METHOD_HELP)
    scope: Literal["global", "layer"] = Field(
        "global", description="the target is of the whole network, or of every layer alike"
    )
    schedule: Literal["one-shot", "iterative", "cubic"] = Field(
        "one-shot", description="iterative and cubic prune while the network is fine-tuned"
    )
    ramp: PositiveInt = Field(10, description="iterative and cubic: epochs until the sparsity is reached")
    every: PositiveInt = Field(100, description="cubic: steps between two masks")
    steps: PositiveInt = Field(12, description="second-order: steps to the target")
    passes: Literal[0, 1, 2, 3, 4] = Field(1, description="second-order: sequential reconstructions afterwards")

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

    def settled(self, *, builds_int8: bool) -> WeightsVariant:  # noqa: ARG002  as in every variant
        """Return it with its choice of batch-norm statistics made."""
        return self.with_batch_norm(is_second_order=self.method == "second-order")


class NmVariant(SparseVariant):
    """N:M sparsity: of every M weights along the input channels at most N are not zero (2:4: sparse tensor cores)."""

    kind: Literal["nm"]
    pattern: str = Field("2:4", pattern=r"^[1-9]\d*:[1-9]\d*$", description="N:M")
    method: Literal["magnitude", "second-order"] = Field("magnitude", description=_METHOD_HELP)
    passes: Literal[0, 1, 2, 3, 4] = Field(1, description="second-order: sequential reconstructions afterwards")

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

    def settled(self, *, builds_int8: bool) -> NmVariant:  # noqa: ARG002  as in every variant
        """Return it with its choice of batch-norm statistics made."""
        return self.with_batch_norm(is_second_order=self.method == "second-order")
