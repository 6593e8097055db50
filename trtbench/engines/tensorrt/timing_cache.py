"""The timings of tactics that builds share: one file for each TensorRT version, GPU and driver.

A foreign or damaged file never fails a build: it starts empty and says so. What a build learned is added to what
another one wrote meanwhile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import filelock

from trtbench.store import storing, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    import tensorrt as trt


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCache:
    """The cache of one build; its object must live until the build has ended.

    Args:
        path: its file.
        cache: what TensorRT reads from and writes to.
        read_bytes: bytes taken from the file; 0 started empty.
        note: what a reader must know, or "".
    """

    path: Path
    cache: trt.ITimingCache
    read_bytes: int
    note: str = ""

    def save(self, config: trt.IBuilderConfig) -> None:
        """Write what the build learned, together with what others wrote meanwhile.

        Raises:
            StoreError: the file cannot be written.
        """
        learned = config.get_timing_cache() or self.cache
        with _locked(self.path):
            # As trtexec does: what a build learned is added to a fresh cache of the file, not the other way round.
            kept = config.create_timing_cache(_read(self.path))
            if kept is None or not kept.combine(learned, ignore_mismatch=False):
                kept = learned
            write_atomically(self.path, bytes(kept.serialize()))


def cache_path(folder: Path, *, version: str, gpu: str, driver: str) -> Path:
    """Return the file of one TensorRT version, GPU (its name and SM) and driver below a folder."""
    named = (f"tensorrt-{version}", gpu, f"driver-{driver}")
    parts = (re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in named)
    return folder / f"{'_'.join(parts)}.timing"


def attach_timing_cache(config: trt.IBuilderConfig, path: Path) -> TimingCache:
    """Give a build the cache of a file, or an empty one where the file is absent, damaged or of another machine."""
    with _locked(path):
        data = _read(path)
    found = config.create_timing_cache(data)
    if found is not None and data and config.set_timing_cache(found, ignore_mismatch=False):
        return TimingCache(path=path, cache=found, read_bytes=len(data))
    empty = config.create_timing_cache(b"")
    assert empty is not None, "an empty timing cache can always be made"
    config.set_timing_cache(empty, ignore_mismatch=False)
    why = "cannot be read" if found is None else "is of another TensorRT, GPU or driver"
    note = f"timing cache {path.name} {why}: it starts empty" if data else ""
    return TimingCache(path=path, cache=empty, read_bytes=0, note=note)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _locked(path: Path) -> filelock.BaseFileLock:
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path.with_name(f".{path.name}.lock"))
