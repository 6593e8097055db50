"""Where data outlives a run: a folder that follows the XDG convention."""

from __future__ import annotations

import os
from pathlib import Path


def data_cache() -> Path:
    """Return $XDG_CACHE_HOME/trtbench/data, by default ~/.cache/trtbench/data; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trtbench" / "data"
