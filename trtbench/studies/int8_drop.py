"""Where an INT8 drop comes from: parts of it, and what each layer brings. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.bench.paired_drop import drop_upper_bound
from trtbench.calibrate.exclusion import Exclusion, lost_and_gained, noise_share, powers, signal_to_noise_db

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a network gets right beside the float one: `lost` images only the float one gets, `gained` only this one.

    `logits_snr_db` is the float logits' power over that of the difference, in decibels; None where there is none.
    """

    correct: int
    total: int
    lost: int
    gained: int
    agreement: float
    logits_snr_db: float | None

    @property
    def drop_pp(self) -> float:
        """Percentage points lost against the float network."""
        return 100 * (self.lost - self.gained) / self.total

    @property
    def drop_upper_pp(self) -> float:
        """The one-sided 95 % upper bound of the paired drop, percentage points."""
        return 100 * drop_upper_bound(self.lost, self.gained, self.total)

    @property
    def noise(self) -> float:
        """The power of the logits' difference over that of the float logits."""
        return noise_share(self.logits_snr_db)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEffect:
    """One way to run the fused engine: `how` in words, its effect against float, and against true Q/DQ arithmetic.

    `true` is true Q/DQ arithmetic on the same images. `saturated_pairs` is counted where the sums are simulated.
    """

    how: str
    effect: Effect
    true: Effect
    against_true_snr_db: float | None
    differing_predictions: int
    saturated_pairs: int | None = None

    @property
    def lost_images(self) -> int:
        """The kernels' share: images that true arithmetic gets right minus those that the engine does."""
        return self.true.correct - self.effect.correct


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSplit:
    """A placement's drop in parts, in images of one split; the parts add up to the drop of true arithmetic.

    `weights` and `activations` are quantized alone, `both` together.
    """

    placement: str
    achieved: str
    float_correct: int
    weights: Effect
    activations: Effect
    both: Effect
    kernels: tuple[KernelEffect, ...] = ()

    @property
    def weights_images(self) -> int:
        """Images that quantized weights alone cost."""
        return self.float_correct - self.weights.correct

    @property
    def activations_images(self) -> int:
        """Images that quantized activations alone cost."""
        return self.float_correct - self.activations.correct

    @property
    def together_images(self) -> int:
        """Images that only both together cost, beyond the sum of each alone."""
        return self.float_correct - self.both.correct - self.weights_images - self.activations_images


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEffect:
    """One layer of a Q/DQ graph.

    `own_snr_db` at its output if only it is quantized, `accumulated_snr_db` there if all are; `only` and `without` are
    what the network gets right if only this layer is quantized, and if only this one is left out.
    """

    name: str
    op_type: str
    macs: int
    own_snr_db: float | None
    accumulated_snr_db: float | None
    only: Effect
    without: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where the INT8 drop of one variant comes from.

    `splits` and `final_test` are of the test images; `layers`, `all_quantized`, `exclusion` and `final_validation` of
    the validation images, in true Q/DQ arithmetic. `exclude` is what the suite's `calibration.exclude` becomes.
    `where` names the CPU and the versions it was measured on.
    """

    model: str
    dataset: str
    variant: str
    placement: str
    calibration: Mapping[str, Any]
    validation_images: int
    test_images: int
    validation_float_correct: int
    splits: tuple[DropSplit, ...]
    layers: tuple[LayerEffect, ...]
    all_quantized: Effect
    max_drop_pp: float
    exclusion: Exclusion[Effect]
    final_validation: Effect
    final_test: Effect
    exclude: tuple[str, ...]
    where: Mapping[str, str]
    schema_version: int = 1


def effect_of(logits: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64]) -> Effect:
    """Compare logits (images, classes) with the float network's, image by image."""
    found, wanted = logits.argmax(axis=1), reference.argmax(axis=1)
    lost, gained = lost_and_gained(logits, reference, labels)
    return Effect(
        correct=int((found == labels).sum()),
        total=len(labels),
        lost=lost,
        gained=gained,
        agreement=float((found == wanted).mean()),
        logits_snr_db=signal_to_noise_db(*powers(reference, logits)),
    )
