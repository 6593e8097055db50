"""ModelOpt's AutoCast: NVIDIA's own FP32 to mixed-precision converter, an optional package."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from trtbench import _optional
from trtbench.errors import CapabilityError, GraphError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from trtbench.precision import HalfType


def autocast(proto: onnx.ModelProto, *, dtype: HalfType, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Convert a float graph with AutoCast; inputs and outputs stay FP32.

    Args:
        proto: the float graph; it is not changed.
        dtype: fp16 or bf16.
        keep: names of nodes that stay in FP32, besides those AutoCast keeps.

    Raises:
        UnsupportedError: ModelOpt is not installed.
        GraphError: AutoCast fails.
    """
    try:
        module = _optional.load("modelopt.onnx.autocast")
    except CapabilityError as error:
        cure = "pip install 'trtbench[modelopt]', or use our own converter"
        raise UnsupportedError("half precision by ModelOpt", got=error.got, cure=cure) from error
    with tempfile.TemporaryDirectory(prefix="trtbench-") as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(proto, path)
        try:
            found: onnx.ModelProto = module.convert_to_mixed_precision(
                onnx_path=str(path),
                low_precision_type=dtype,
                nodes_to_exclude=[f"^{re.escape(name)}$" for name in keep],
                keep_io_types=True,
                providers=["cpu"],
            )
        except Exception as error:  # AutoCast's errors share no base but Exception
            what = f"graph {proto.graph.name!r} by AutoCast"
            raise GraphError(what, got=" ".join(str(error).split()), cure="use our own converter") from error
    return found
