"""The timing cache: bytes that say which version and device they are of, and what was timed."""

from __future__ import annotations

import json
from typing import Any

from simulated_cuda import device

from . import facts
from .strict import Made, strict
from .values import IHostMemory

_MAGIC = b"simulated-timing-cache\n"


@strict("ITimingCache")
class ITimingCache(Made):
    """What tactics took, by layer."""

    def _setup(self, header: dict[str, Any], entries: dict[str, float]) -> None:
        self._header, self._entries = header, entries

    def serialize(self) -> Any:
        content = {"header": self._header, "entries": self._entries}
        return IHostMemory._of(_MAGIC + json.dumps(content, sort_keys=True).encode())

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        if not self._is_same_place(input_cache, ignore_mismatch=ignore_mismatch):
            return False
        self._entries |= input_cache._entries
        return True

    def reset(self) -> bool:
        self._entries.clear()
        return True

    def _is_same_place(self, other: Any, *, ignore_mismatch: bool) -> bool:
        same_version = self._header["version"] == other._header["version"]
        return same_version and (ignore_mismatch or self._header == other._header)


def present_header() -> dict[str, Any]:
    """Say what a cache made here and now is of."""
    sm = "{}.{}".format(*device.compute_capability())
    return {"version": facts.current().version, "device": device.NAME, "sm": sm}


def read(data: bytes) -> Any:
    """Make a cache of bytes: an empty one of none, and nothing of bytes that are no cache."""
    if not data:
        return ITimingCache._of(present_header(), {})
    if not data.startswith(_MAGIC):
        return None
    try:
        content = json.loads(data[len(_MAGIC) :])
    except ValueError:
        return None
    return ITimingCache._of(content["header"], content["entries"])
