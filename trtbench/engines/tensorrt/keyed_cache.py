"""A calibration cache on disk with the key of what it was made from: one of another key is never read.

TensorRT reads whatever cache it is given, even one of another network or other images: to tell them apart "is the
responsibility of the application" (NvInfer.h, IInt8Calibrator::readCalibrationCache).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from trtbench.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


class KeyedCache:
    """One cache file and, beside it, `<name>.json` with its key and its sha256.

    Args:
        path: the cache file, as TensorRT writes it.
        key: the sha256 of all that decides its content.
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self._path = path
        self._label = path.with_name(f"{path.name}.json")
        self._key = key
        self.notes: tuple[str, ...] = ()

    def read(self) -> bytes | None:
        """Return the cache if it is there, whole and of this key, else None."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            problem: str | None = error.strerror or str(error)
        else:
            problem = self._problem(content)
        if problem is not None:
            self.notes += (f"calibration cache {self._path.name} is not read: {problem}",)
            return None
        self.notes += (f"ranges from the calibration cache {self._path.name}",)
        return content

    def write(self, content: bytes) -> None:
        """Write the cache and then its label: between the two the cache fits no label, and is not read.

        Raises:
            StoreError: the folder cannot be written.
        """
        write_atomically(self._path, content)
        label = {"key": self._key, "sha256": hashlib.sha256(content).hexdigest()}
        write_atomically(self._label, json.dumps(label, indent=1))

    def _problem(self, content: bytes) -> str | None:
        """Say why the file is not the one wanted, or None."""
        try:
            label = json.loads(self._label.read_bytes())
            key, digest = label["key"], label["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return "it has no label that says what it was made from"
        if key != self._key:
            return "it was made from other images, settings or another TensorRT"
        return None if digest == hashlib.sha256(content).hexdigest() else "it is not the file that was written"
