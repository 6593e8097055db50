"""What every part of a suite is, and how values from outside become one, or faults in our words: place, key, cure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_EXPECTED = {
    "extra_forbidden": "no such key",
    "missing": "this key",
    "union_tag_invalid": "a kind of {expected_tags}",
    "union_tag_not_found": "a kind",
    "too_short": "at least {min_length}",
}
_CURES = {
    "extra_forbidden": "remove the key or mend its spelling: `trtbench schema` lists the keys",
    "missing": "add the key; `trtbench init` writes a complete suite",
    "union_tag_invalid": "use one of the kinds named",
    "union_tag_not_found": "add the kind, as `kind: dense`; `trtbench schema` lists them",
}
Path = tuple[int | str, ...]  # of keys and of indices


class Part(BaseModel):
    """A part of the suite: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnyPart = TypeVar("AnyPart", bound=Part)


def unique(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list that names something twice.

    Raises:
        ValueError: it does.
    """
    if len(set(items)) < len(items):
        raise ValueError("each only once")
    return items


def validated(
    kind: type[AnyPart], raw: dict[Any, Any], *, origin: str, locate: Callable[[Path], str] = lambda _: ""
) -> AnyPart:
    """Validate raw values as a part of a suite.

    Args:
        kind: the part.
        raw: its keys.
        origin: where they come from.
        locate: says where a path stands there, as ":3:7"; "" where there is no text.

    Raises:
        ConfigError: one line per fault.
    """
    try:
        # JSON has no tuples and no paths, so that strictness (a number in quotes is no number) leaves those alone.
        return kind.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        faults = [_fault(origin, fault, locate) for fault in found if not _follows(fault, found)]
        raise ConfigError("\n".join(faults)) from error


def options(part: type[AnyPart], /, **values: Any) -> AnyPart:
    """Validate one part of a suite that came as command-line options; None stands for the default.

    Raises:
        ConfigError: a value that cannot be, named as in the suite file.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return validated(part, given, origin="command line")


def _follows(fault: Any, others: list[Any]) -> bool:
    """Say whether a list is too short only because its items were refused."""
    where = fault["loc"]
    return fault["type"] == "too_short" and any(
        other is not fault and other["loc"][: len(where)] == where for other in others
    )


def _fault(origin: str, fault: Any, locate: Callable[[Path], str]) -> str:
    """Put one of pydantic's faults into our words: file, line and column, key, expected, got, cure."""
    path: Path = fault["loc"]
    if path[:1] == ("variants",):
        path = path[:2] + path[3:]  # behind the index pydantic puts the kind, which is no key of the file
    key = ".".join(map(str, path)) or "the whole file"
    cure = _CURES.get(fault["type"], "mend the value; `trtbench schema` says what each key takes")
    expected = _EXPECTED.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").removeprefix(
        "Input should be "
    )
    expected = expected.format(**fault.get("ctx", {}))
    is_scalar = not isinstance(fault["input"], (dict, list, tuple, BaseModel))
    got = "nothing" if fault["type"] == "missing" else repr(fault["input"]) if is_scalar else ""
    return f"{origin}{locate(path)}: {key}: expected {expected}{f', got {got}' if got else ''}; {cure}"
