"""Kernels of CUDA source: compiled for the host, run when the stream comes to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from simulated_cuda import kernels, memory, streams
from simulated_cuda.faults import CUDARuntimeError

from ._array import ndarray
from .cuda._memory import MemoryPointer
from .cuda.compiler import CompileException
from .cuda.stream import _BaseStream, get_current_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_THREADS = 1024


class RawKernel:
    """One kernel of a source."""

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        *,
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        jitify: bool = False,
    ) -> None:
        _refuse(options)
        self.code, self.name, self.options, self.backend = code, name, options, backend

    def compile(self, log_stream: Any = None) -> None:
        self._compiled()

    def _compiled(self) -> kernels.Compiled:
        try:
            return kernels.compiled(self.code, self.name)
        except kernels.CompileError as error:
            raise CompileException(str(error)) from error

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: _BaseStream | None = None,
    ) -> None:
        compiled = self._compiled()
        threads = int(np.prod(block))
        if threads > _MOST_THREADS:
            raise CUDARuntimeError("cudaErrorInvalidValue", f"a block of {threads} threads")
        packed = [_packed(each, one) for each, one in zip(compiled.parameters, _checked(compiled, args), strict=True)]
        handle = (get_current_stream() if stream is None else stream).ptr
        reads = [
            int.from_bytes(value, "little")
            for each, value in zip(compiled.parameters, packed, strict=True)
            if each.is_pointer and any(value)
        ]
        # The pool keeps a block until the stream has passed its last use; a graph keeps nothing alive.
        held = () if streams.is_capturing(handle) else tuple(args)

        def launch(_held: tuple[Any, ...] = held) -> None:
            for address in reads:
                memory.region(address, 1)
            compiled.run(grid, block, packed)

        streams.submit(handle, launch)


class RawModule:
    """A source of several kernels."""

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None,
        jitify: bool = False,
    ) -> None:
        _refuse(options)
        self.code, self.options, self.backend, self.name_expressions = code, options, backend, name_expressions

    def get_function(self, name: str, /) -> RawKernel:
        kernel = RawKernel(self.code, name, self.options)
        kernel.compile()
        return kernel

    def compile(self, log_stream: Any = None) -> None:
        for name in kernels.parameters_of(self.code):
            self.get_function(name)


def _refuse(options: tuple[str, ...]) -> None:
    if not isinstance(options, tuple) or not all(isinstance(each, str) and each.startswith("-") for each in options):
        raise TypeError(f"options is a tuple of compiler flags, not {options!r}")


def _checked(compiled: kernels.Compiled, args: Sequence[Any]) -> Sequence[Any]:
    if len(args) != len(compiled.parameters):
        raise TypeError(f"{compiled.name} takes {len(compiled.parameters)} arguments, not {len(args)}")
    return args


def _packed(parameter: kernels.Parameter, value: Any) -> bytes:
    """Give an argument's bytes; CUDA would read wrong ones silently where the sizes differ, so that is refused."""
    if isinstance(value, ndarray):
        number: Any = np.uint64(value.data.ptr)
    elif isinstance(value, MemoryPointer):
        number = np.uint64(value.ptr)
    elif isinstance(value, bool | int | float):
        number = np.asarray(value)[()]  # a plain int is a long long and a plain float a double, as with CuPy
    elif isinstance(value, np.generic):
        number = value
    else:
        raise TypeError(f"Unsupported type {type(value)}")
    fits = number.dtype.itemsize == parameter.nbytes and (number.dtype.kind == "f") == parameter.is_float
    if not fits or (isinstance(value, ndarray) and not parameter.is_pointer):
        raise TypeError(f"the kernel's {parameter.name} is {parameter.c_type}, but {number.dtype} was given")
    return bytes(number.tobytes())
