"""What every part of a suite is, and how values from outside become one, or faults in our words: place, key, cure."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
# Every number has an upper bound; what is beyond it is a slip of the pen, and would end hours later, in want of memory.
Count = Annotated[int, Field(gt=0, le=10**6)]  # of images, steps, samples: ImageNet has 1.3 million, nobody needs all
Few = Annotated[int, Field(gt=0, le=1000)]  # of what each costs a build, a process or a pass
Batch = Annotated[int, Field(gt=0, le=65_536)]  # images at once: of 32 x 32 pixels that many take 800 MB in float32
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what scikit-learn takes is the least that any of our generators takes
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]  # a week
Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]  # an hour
Weight = Annotated[float, Field(ge=0, le=100)]  # of a term of a loss, and what shapes a distribution
_LONGEST_NAME = 80  # of which, with runtime and precision, file names are made: file systems take 255 bytes
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=_LONGEST_NAME)]
_SHOWN = 20  # faults
_EXPECTED = {
    "extra_forbidden": "no such key",
    "missing": "this key",
    "union_tag_invalid": "a kind of {expected_tags}",
    "union_tag_not_found": "a kind",
    "too_short": "at least {min_length}",
}
_CURES = {
    "extra_forbidden": "{near}remove the key or mend its spelling: `trtbench schema` lists the keys",
    "missing": "add the key; `trtbench init` writes a complete suite",
    "union_tag_invalid": "{near}use one of the kinds named",
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
        faults = [fault for fault in found if not _follows(fault, found)]
        more = [f"{origin}: and {len(faults) - _SHOWN} faults more"] if len(faults) > _SHOWN else []
        lines = [_fault(kind, origin, fault, locate) for fault in faults[:_SHOWN]]
        raise ConfigError("\n".join([*lines, *more])) from error


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


def _fault(part: type[Part], origin: str, fault: Any, locate: Callable[[Path], str]) -> str:
    """Put one of pydantic's faults into our words: file, line and column, key, expected, got, cure."""
    path: Path = fault["loc"]
    if path[:1] == ("variants",):
        path = path[:2] + path[3:]  # behind the index pydantic puts the kind, which is no key of the file
    key = ".".join(map(str, path)) or "the whole file"
    cure = _CURES.get(fault["type"], "{near}mend the value; `trtbench schema` says what each key takes")
    expected = _EXPECTED.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").removeprefix(
        "Input should be "
    )
    expected = expected.format(**fault.get("ctx", {}))
    is_scalar = not isinstance(fault["input"], (dict, list, tuple, BaseModel))
    got = "nothing" if fault["type"] == "missing" else f"{fault['input']!r:.200}" if is_scalar else ""
    cure = cure.format(near=_near(part, fault, expected))
    return f"{origin}{locate(path)}: {key}: expected {expected}{f', got {got}' if got else ''}; {cure}"


def _near(part: type[Part], fault: Any, expected: str) -> str:
    """Ask whether another key or value was meant, or say where a key stands that is none here."""
    if fault["type"] == "extra_forbidden":
        wrong = str(fault["loc"][-1])
        known = [name for one in _parts_at(part, fault["loc"][:-1]) for name in one.model_fields]
        homes = sorted(
            (home for home in _homes(part, wrong) if "." in home), key=lambda home: home.startswith("variants.")
        )
    else:
        wrong = fault.get("ctx", {}).get("tag", fault["input"])
        known, homes = re.findall(r"[A-Za-z][\w.-]*", expected), []
    if isinstance(wrong, str) and (nearest := difflib.get_close_matches(wrong, known, n=1)):
        return f"did you mean {nearest[0]}? "
    return f"it stands in {' and '.join(homes[:2])}; " if homes else ""


def _parts_at(part: type[Part], path: Path) -> tuple[type[Part], ...]:
    """Return the parts that may stand at a path of pydantic's, which has the kind of a variant behind its index."""
    found: tuple[type[Part], ...] = (part,)
    for step in path:
        if fields := [one.model_fields[step] for one in found if step in one.model_fields]:
            found = tuple(inner for one in fields for inner in _parts_of(one.annotation))
        elif isinstance(step, str):
            found = tuple(one for one in found if step in get_args(one.model_fields["kind"].annotation))
    return found


def _parts_of(annotation: Any) -> tuple[type[Part], ...]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return (annotation,)
    return tuple(part for one in get_args(annotation) for part in _parts_of(one))


def _homes(part: type[Part], key: str, prefix: str = "") -> list[str]:
    """Return the places of a suite that have a key of this name."""
    found = [f"{prefix}{key}"] if key in part.model_fields else []
    for name, field in part.model_fields.items():
        found += [home for one in _parts_of(field.annotation) for home in _homes(one, key, f"{prefix}{name}.")]
    return list(dict.fromkeys(found))
