"""The double's engine file: a line of magic, a header, a digest, and the ONNX graph that is computed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

MAGIC = b"ftrt-simulated\n"
_DIGEST_BYTES = 32


class BrokenPlanError(Exception):
    """The bytes are no plan, or not all of one."""


def packed(header: dict[str, Any], model: bytes) -> bytes:
    """Write a plan."""
    text = json.dumps(header, sort_keys=True).encode()
    body = len(text).to_bytes(8, "little") + text + model
    return MAGIC + hashlib.sha256(body).digest() + body


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Read a plan.

    Raises:
        BrokenPlanError: for other bytes.
    """
    if not data.startswith(MAGIC):
        raise BrokenPlanError("magicTag is not that of a serialized engine")
    digest, body = data[len(MAGIC) :][:_DIGEST_BYTES], data[len(MAGIC) + _DIGEST_BYTES :]
    if hashlib.sha256(body).digest() != digest:
        raise BrokenPlanError("the serialized engine is corrupt")
    end = 8 + int.from_bytes(body[:8], "little")
    return json.loads(body[8:end]), body[end:]
