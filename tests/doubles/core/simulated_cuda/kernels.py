"""CUDA source compiled as C++ for the host, so that the very text of a kernel runs without a GPU.

Threads run one after the other: a kernel with shared memory or a barrier does not compile here.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHIM = Path(__file__).with_name("host_shim.h")
_KERNEL = re.compile(
    r"__global__\s+(?:__launch_bounds__\([^)]*\)\s*)?void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)"
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_SIZES = {
    "bool": 1,
    "char": 1,
    "signed char": 1,
    "unsigned char": 1,
    "uint8_t": 1,
    "int8_t": 1,
    "short": 2,
    "int": 4,
    "int32_t": 4,
    "unsigned int": 4,
    "unsigned": 4,
    "uint32_t": 4,
    "float": 4,
    "long": 8,
    "long long": 8,
    "int64_t": 8,
    "unsigned long long": 8,
    "uint64_t": 8,
    "size_t": 8,
    "double": 8,
}
_FLOATS = {"float", "double"}


class CompileError(Exception):
    """The source is no kernel that can run here; the text is the compiler's."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kernel: its C type without qualifiers, and whether it is a pointer."""

    name: str
    c_type: str
    is_pointer: bool

    @property
    def nbytes(self) -> int:
        """Bytes the argument takes."""
        return 8 if self.is_pointer else _SIZES[self.c_type]

    @property
    def is_float(self) -> bool:
        """Whether a floating-point number is wanted."""
        return not self.is_pointer and self.c_type in _FLOATS


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel of a library: its parameters and the function that runs the whole grid."""

    name: str
    parameters: tuple[Parameter, ...]
    library: ctypes.CDLL

    def run(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[bytes]) -> None:
        """Run every thread of every block, one after the other; each argument is its bytes."""
        held = [ctypes.create_string_buffer(each, len(each)) for each in arguments]
        pointers = (ctypes.c_void_p * max(len(held), 1))(*(ctypes.addressof(each) for each in held))
        sizes = (ctypes.c_uint * 6)(*_three(grid), *_three(block))
        getattr(self.library, f"launch_{self.name}")(pointers, sizes)


def has_compiler() -> bool:
    """Say whether this machine can compile kernels."""
    return shutil.which("g++") is not None


def parameters_of(source: str) -> dict[str, tuple[Parameter, ...]]:
    """Read the kernels of a source and what each takes.

    Raises:
        CompileError: for a parameter type that is not known here.
    """
    text = _COMMENT.sub(" ", source)
    return {name: tuple(_parameter(each) for each in text_.split(",")) for name, text_ in _KERNEL.findall(text)}


@functools.cache
def compiled(source: str, name: str) -> Compiled:
    """Compile one kernel of a source.

    Raises:
        CompileError: when g++ is absent, the kernel is not there, or the compiler refuses it.
    """
    found = parameters_of(source)
    if name not in found:
        raise CompileError(f"named symbol not found: {name}; the source has {sorted(found)}")
    return Compiled(name=name, parameters=found[name], library=_library(source))


@functools.cache
def _library(source: str) -> ctypes.CDLL:
    text = f'#include "{_SHIM}"\n{source}\n' + "".join(_launcher(*each) for each in parameters_of(source).items())
    digest = hashlib.sha256((text + _SHIM.read_text(encoding="utf-8")).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"simulated-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"{digest}.so"
    if not built.exists():
        _build(text, built)
    return ctypes.CDLL(str(built))


def _build(text: str, built: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        raise CompileError("g++ is not installed, and kernels are compiled for the CPU here")
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        source, library = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        source.write_text(text, encoding="utf-8")
        # No contraction: NumPy, the twin of every kernel, has no fused multiply-add either.
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-w"]
        done = subprocess.run(
            [compiler, *flags, "-o", str(library), str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CompileError(done.stderr)
        library.replace(built)


def _launcher(name: str, parameters: tuple[Parameter, ...]) -> str:
    values = ", ".join(
        f"*({each.c_type}{'*' if each.is_pointer else ''}*)args[{place}]" for place, each in enumerate(parameters)
    )
    loops = "".join(
        f"for (unsigned {axis}{level} = 0; {axis}{level} < {size}; ++{axis}{level}) "
        for level, start in (("b", 0), ("t", 3))
        for axis, size in ((axis, f"n[{start + place}]") for place, axis in enumerate("xyz"))
    )
    body = f"blockIdx = {{xb, yb, zb}}; threadIdx = {{xt, yt, zt}}; {name}({values});"
    sizes = "gridDim = {n[0], n[1], n[2]}; blockDim = {n[3], n[4], n[5]};"
    return f'extern "C" void launch_{name}(void** args, const unsigned* n) {{ {sizes} {loops} {{ {body} }} }}\n'


def _parameter(text: str) -> Parameter:
    is_pointer = "*" in text
    words = re.sub(r"\b(const|volatile|__restrict__|restrict)\b|\*", " ", text).split()
    c_type, name = " ".join(words[:-1]), words[-1]
    if c_type not in _SIZES and not is_pointer:
        raise CompileError(f"parameter {text.strip()!r}: no such type is known here")
    return Parameter(name, c_type, is_pointer)


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    given = tuple(int(size) for size in sizes)
    if not 1 <= len(given) <= 3 or min(given) < 1:
        raise CompileError(f"a grid or block has one to three sizes above zero, not {given}")
    x, y, z = given + (1,) * (3 - len(given))
    return x, y, z
