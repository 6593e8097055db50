"""TensorRT for RTX 1.7, simulated: put this folder and tests/doubles/cuda on the path where it would be imported."""

import sys as _sys
from pathlib import Path as _Path

_CORE = str(_Path(__file__).parents[2] / "core")
if _CORE not in _sys.path:
    _sys.path.append(_CORE)

from simulated_tensorrt import assemble as _assemble

_assemble(globals(), api="tensorrt-rtx-1.7.json")
