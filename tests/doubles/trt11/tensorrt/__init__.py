"""TensorRT 11.4, simulated: put this folder and tests/doubles/cuda on the path where TensorRT would be imported."""

import sys as _sys
from pathlib import Path as _Path

_CORE = str(_Path(__file__).parents[2] / "core")
if _CORE not in _sys.path:
    _sys.path.append(_CORE)

from simulated_tensorrt import assemble as _assemble

_assemble(globals(), api="tensorrt-11.4.json")
