"""The part of PyCUDA that trtbench uses where CuPy is absent, on the simulated GPU."""

from __future__ import annotations

import sys
from pathlib import Path

_CORE = str(Path(__file__).parents[2] / "core")
if _CORE not in sys.path:
    sys.path.append(_CORE)

VERSION = (2026, 1)
VERSION_TEXT = "2026.1"
