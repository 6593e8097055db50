"""Records as JSON: plain values, the one canonical text of them, and its sha256."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = "password|passwd|token|secret|key"
_STARS = "***"


def canonical_json(value: Any) -> str:
    """Write `value` as JSON with sorted keys and no spaces, so that equal values hash equally."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def sha256_of(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(to_jsonable(value)).encode()).hexdigest()


def to_jsonable(record: Any) -> Any:
    """Turn a record, and what it holds, into dicts, lists and scalars for `json.dumps`.

    A record whose JSON is not just its fields says what it is by a method `as_json`.
    """
    if hasattr(record, "as_json"):
        return to_jsonable(record.as_json())
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_jsonable(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {str(key): to_jsonable(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_jsonable(value) for value in record]
    return record


def without_secrets(words: Sequence[str]) -> list[str]:
    """Return a command line as it may be written down: no user of a URL, no value of what is named like a password."""
    found: list[str] = []
    for word in words:
        is_value = bool(found) and re.fullmatch(rf"--?[\w-]*({_NAMED})", found[-1], re.IGNORECASE) is not None
        hidden = re.sub(r"(?<=://)[^/\s]*(?=@)", _STARS, word)
        hidden = re.sub(rf"((?:{_NAMED})=)[^&;\s]+", rf"\1{_STARS}", hidden, flags=re.IGNORECASE)
        found.append(_STARS if is_value else hidden)
    return found
