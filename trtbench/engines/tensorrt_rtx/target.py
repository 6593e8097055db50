"""Which GPUs an engine of TensorRT for RTX is built for, and what those cannot do. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from trtbench.environment.verdicts import RtxTarget
from trtbench.errors import UnsupportedError
from trtbench.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.engines.base import BuildOptions

NAMES: tuple[str, ...] = get_args(RtxTarget)
_TURING = "sm75"
_FIRST_FP8 = (8, 9)
# Several targets in one engine cost bytes only; Turing, which lacks most, would be all of them's measure.
USUAL = tuple(name for name in NAMES if name != _TURING)
# What has no effect ahead of time, or needs a GPU's driver to be built.
_WITHOUT_EFFECT = {
    "sparse": "sparse weights change nothing before the GPU's own compilation",
    "hardware_compatible": "name the GPUs by `targets`: one engine is for all of them",
    "version_compatible": "an engine is bound to its version of TensorRT for RTX",
}


def targets_of(options: Sequence[str]) -> tuple[str, ...]:
    """Return the targets asked for, or what is usual, in the order of the silicon."""
    return tuple(name for name in NAMES if name in options) or USUAL


def compute_capability(target: str) -> tuple[int, int]:
    """Return the compute capability of a target: (8, 9) of sm89."""
    number = int(target.removeprefix("sm"))
    return number // 10, number % 10


def told(targets: Sequence[str]) -> str:
    """Return targets as a row names the device that it is for."""
    return "RTX " + ", ".join(targets)


def refuse(precision: str, options: BuildOptions) -> None:
    """Refuse what an engine would lack in silence.

    Raises:
        UnsupportedError: a target lacks the precision, or computes it in floats, or an option has no effect.
    """
    asked, targets = PRECISIONS[precision], targets_of(options.targets)
    if asked.codes == "fp8" and (lacking := [one for one in targets if compute_capability(one) < _FIRST_FP8]):
        what = f"precision {precision!r} for {', '.join(lacking)}"
        able = ", ".join(name for name in NAMES if compute_capability(name) >= _FIRST_FP8)
        raise UnsupportedError(what, got="no FP8 there", cure=f"name GPUs that compute it: `targets: [{able}]`")
    if _TURING in targets and (asked.is_int8 or asked.needs_ampere):
        got = "INT8 convolutions become FP16 or FP32 there" if asked.is_int8 else "no BF16 there"
        cure = "leave sm75 out of the targets, or ask it for fp16"
        raise UnsupportedError(f"precision {precision!r} for sm75", got=got, cure=cure)
    for name, why in _WITHOUT_EFFECT.items():
        if getattr(options, name):
            raise UnsupportedError(f"{name}: true on tensorrt-rtx", got="no effect", cure=f"leave it out; {why}")
