"""The precisions: what each is, once. Whoever needs to know more of one than its name asks this table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

HalfType = Literal["fp16", "bf16"]
Codes = Literal["int8", "fp8"]
Runtime = Literal["tensorrt", "onnxruntime-cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """One precision.

    Args:
        name: as suites, rows, sidecars and files have it.
        graph: what its engines are built from: the float graph, one in half precision, or one of Q/DQ pairs.
        half: the half type that it computes in, where its layers are not quantized.
        codes: what its quantized layers compute in: calibration images decide them.
        halves: of a half graph: the precision whose Q/DQ graph it is made from.
        explicit: of INT8 that a runtime calibrates itself: the precision that says the same in Q/DQ pairs.
        needs_ampere: a GPU before SM 8.0 only imitates it.
    """

    name: str
    graph: Literal["float", "half", "qdq"] = "float"
    half: HalfType | None = None
    codes: Codes | None = None
    halves: str | None = None
    explicit: str | None = None
    needs_ampere: bool = False

    @property
    def is_int8(self) -> bool:
        """Whether its quantized layers compute in INT8."""
        return self.codes == "int8"

    @property
    def calibrates_itself(self) -> bool:
        """Whether the runtime chooses the INT8 ranges, from images that it is fed."""
        return self.explicit is not None

    @property
    def channel_step(self) -> int:
        """Channels per step of the matrix units: counts between two steps are padded up to the next.

        NVIDIA, Deep Learning Performance guide, "Tensor Core requirements"; CPUs have no such units.
        """
        return 16 if self.codes else 8


_ALL = (
    Precision(name="fp32"),
    Precision(name="tf32", needs_ampere=True),
    Precision(name="fp16", graph="half", half="fp16"),
    Precision(name="bf16", graph="half", half="bf16", needs_ampere=True),
    Precision(name="int8", graph="qdq", codes="int8"),
    Precision(name="int8+fp16", graph="half", half="fp16", codes="int8", halves="int8"),
    Precision(name="fp8", graph="qdq", codes="fp8"),
    Precision(name="fp8+fp16", graph="half", half="fp16", codes="fp8", halves="fp8"),
    Precision(name="int8-implicit", codes="int8", explicit="int8"),
    Precision(name="int8-implicit+fp16", half="fp16", codes="int8", explicit="int8+fp16"),
)
PRECISIONS = {one.name: one for one in _ALL}
NONE_IN_INT8 = ": int8 in 0 of "  # in what an engine achieved that was asked for in INT8 and computes in float
PLACEMENTS: tuple[Runtime, ...] = get_args(Runtime)  # whose kernels the Q/DQ pairs of an int8 graph are placed for

if TYPE_CHECKING:
    PrecisionName = str
    FloatPrecision = str
else:  # read by pydantic, which refuses every other name and writes them into the schemas
    PrecisionName = Literal[tuple(PRECISIONS)]
    FloatPrecision = Literal[tuple(one.name for one in _ALL if not one.is_int8)]


def shown_precision(precision: str, *, sparse: bool = False, rescued: bool = False, build: int = 1) -> str:
    """Return a precision as names of rows and files show it: with what else tells two engines of it apart."""
    again = f"#{build}" if build > 1 else ""
    return f"{precision}{'-rescued' if rescued else ''}{'+sparse' if sparse else ''}{again}"


def read_shown(shown: str) -> tuple[str, bool, int]:
    """Return precision, sparse and build from what `shown_precision` wrote.

    Reports and sidecars once had them in one text; what is no such text comes back as the precision.
    """
    found = re.fullmatch(r"(?P<precision>.+?)(?P<sparse>\+sparse)?(#(?P<build>[0-9]{1,6}))?", shown, re.DOTALL)
    if found is None:
        return shown, False, 1
    return found["precision"], found["sparse"] is not None, int(found["build"] or 1)
