"""From a requested precision to how TensorRT is told of it: typing, builder flags by name, calibrator. Pure.

In a strongly typed network the types stand in the ONNX graph and precision flags are an error; only the implicit
precisions of TensorRT 10 are weakly typed. TF32 is on by default in both majors, so every precision that does not ask
for it clears it: what is not of low precision is real FP32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.engines.base import refuse_precision
from trtbench.environment import Gpu
from trtbench.environment.verdicts import capability
from trtbench.errors import UnsupportedError
from trtbench.precision import PRECISIONS, Codes, HalfType, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.engines.base import BuildOptions
    from trtbench.engines.tensorrt.library import Abilities

BUILDABLE = tuple(PRECISIONS)

_FLAGS: Mapping[str, tuple[str, ...]] = {
    "tf32": ("TF32",),
    "int8-implicit": ("INT8",),
    "int8-implicit+fp16": ("INT8", "FP16"),
}
# the element type that a half graph must hold: without it the engine would be FP32 under another name
_TYPES: Mapping[HalfType, str] = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPlan:
    """How TensorRT is told of a precision.

    Args:
        needs_calibrator: TensorRT chooses the INT8 ranges by itself, from images it is fed.
        codes: what the graph's Q/DQ nodes must make; None where it must hold none.
        element_type: the ONNX element type that the graph must hold, or "".
    """

    precision: str
    is_strongly_typed: bool
    flags: tuple[str, ...]
    cleared: tuple[str, ...]
    needs_calibrator: bool
    codes: Codes | None
    element_type: str

    @property
    def target(self) -> str:
        """The precision that a convolution has where the request was met."""
        return PRECISIONS[self.precision].codes or self.precision


def plan_precision(
    precision: str, *, abilities: Abilities, options: BuildOptions, compute_capability: tuple[int, int]
) -> PrecisionPlan:
    """Return how the installed TensorRT is told of a precision on a GPU.

    Raises:
        UnsupportedError: TensorRT, its major or the GPU has no such thing; the reason and the cure are in the message.
    """
    refuse_precision(precision, "tensorrt", known=BUILDABLE)
    asked = PRECISIONS[precision]
    if asked.calibrates_itself:
        _refuse_implicit(asked, abilities=abilities)
    _refuse_silicon(asked, options=options, compute_capability=compute_capability)
    chosen = {"SPARSE_WEIGHTS": options.sparse, "VERSION_COMPATIBLE": options.version_compatible}
    flags = (*_FLAGS.get(precision, ()), *(name for name, is_chosen in chosen.items() if is_chosen))
    return PrecisionPlan(
        precision=precision,
        is_strongly_typed=not asked.calibrates_itself,
        flags=flags,
        cleared=() if "TF32" in flags else ("TF32",),
        needs_calibrator=asked.calibrates_itself,
        codes=None if asked.calibrates_itself else asked.codes,
        element_type=_TYPES[asked.half] if asked.graph == "half" and asked.half else "",
    )


def _refuse_implicit(asked: Precision, *, abilities: Abilities) -> None:
    if not (abilities.has_calibrator and abilities.has_weak_typing):
        raise UnsupportedError(
            f"precision {asked.name!r} on TensorRT {abilities.version}",
            expected="TensorRT 10.x: 11 has neither calibrators nor weakly typed networks",
            cure=f"ask for {asked.explicit!r} (the same images become Q/DQ nodes), or install TensorRT 10",
        )


def _refuse_silicon(asked: Precision, *, options: BuildOptions, compute_capability: tuple[int, int]) -> None:
    """Refuse what the GPU would compute as something else in silence: TF32 before Ampere is plain FP32."""
    gpu = Gpu(index=0, uuid="", name="", compute_capability=compute_capability)
    wanted = [asked.name] if asked.needs_ampere else ["fp8"] if asked.codes == "fp8" else []
    for name in (*wanted, *(["2:4"] if options.sparse else [])):
        if not (found := capability(name, gpu=gpu)).is_available:
            what = f"precision {asked.name!r}" if name != "2:4" else "sparse: true"
            raise UnsupportedError(f"{what} on SM {gpu.sm}", got=found.reason, cure=found.cure)


def usual(abilities: Abilities, *, compute_capability: tuple[int, int]) -> tuple[str, ...]:
    """Return the precisions worth asking for where a suite names none."""
    gpu = Gpu(index=0, uuid="", name="", compute_capability=compute_capability)
    has_tf32 = capability("tf32", gpu=gpu).is_available
    implicit = ("int8-implicit+fp16",) if abilities.has_calibrator and abilities.has_weak_typing else ()
    return ("fp32", *(("tf32",) if has_tf32 else ()), "fp16", "int8", "int8+fp16", *implicit)
