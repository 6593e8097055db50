"""Functions and constants of the module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import facts
from .strict import kinds

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONSTANTS = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
    "fp8": "FP8",
    "int4": "INT4",
    "fp4": "FP4",
    "e8m0": "E8M0",
}
_NUMPY: dict[str, type[np.generic]] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


def constant(name: str) -> Any:
    """Look up a short name of a data type."""
    return kinds.DataType.__members__[_CONSTANTS[name]]


def nptype(trt_type: Any) -> type[np.generic]:
    """Translate a data type to NumPy's.

    Raises:
        TypeError: where NumPy has none, such as for bfloat16.
    """
    if trt_type.name not in _NUMPY:
        raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy datatype: {trt_type}")
    return _NUMPY[trt_type.name]


def volume(iterable: Iterable[int]) -> int:
    """Multiply the sizes of a shape."""
    return math.prod(iterable)


def get_nv_onnx_parser_version() -> int:
    """Give the parser's version as one number."""
    major, minor, patch = (int(each) for each in facts.current().version.split(".")[:3])
    return major * 10000 + minor * 100 + patch


def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
    """Load the plugins there are: none is needed here."""
    return True
