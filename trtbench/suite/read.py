"""Reading a suite file: YAML, its paths, and each fault told with file, key, expectation, finding and cure."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from trtbench.errors import ConfigError
from trtbench.suite.parts import Suite
from trtbench.suite.variants import VARIANT_KINDS

if TYPE_CHECKING:
    from trtbench.suite.base import AnyPart

# (section, key, what stands before the path)
_PATHS = (
    ("model", "checkpoint", ""),
    ("model", "name", "onnx:"),
    ("calibration", "manifest", ""),
    ("data", "source", "folder:"),
)
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


def shipped_suites() -> tuple[str, ...]:
    """Return the names of the suites inside the package."""
    folder = resources.files("trtbench") / "suites"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_suite(source: str | Path) -> Suite:
    """Read a suite from a file, or by the name of a shipped one.

    Relative paths inside the suite (checkpoint, manifest, folder: data) are taken from the suite file's folder;
    ${NAME} in them is the environment variable of that name.

    Raises:
        ConfigError: no such file, no YAML, or a value that cannot be; the message names file, key and cure.
    """
    path = Path(source)
    if str(source) in shipped_suites():
        text = (resources.files("trtbench") / "suites" / f"{source}.yaml").read_text(encoding="utf-8")
        base = Path.cwd()
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"suite {str(source)!r}",
                expected=f"a YAML file or one of the shipped suites ({', '.join(shipped_suites())})",
                got=getattr(error, "strerror", None) or "bytes that are not UTF-8 text",
                cure="`trtbench init` writes one",
            ) from error
        base = path.resolve().parent
    return parse_suite(text, origin=str(source), base=base)


def parse_suite(text: str, *, origin: str, base: Path | None = None) -> Suite:
    """Validate the text of a suite.

    Raises:
        ConfigError: one line per fault, each with file, key, expectation, finding and cure.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{origin}: not valid YAML", got=" ".join(str(error).split()), cure="mend the line named"
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{origin}: the whole file",
            expected="a mapping of keys",
            got=type(raw).__name__,
            cure="`trtbench init` writes a suite",
        )
    places = _places(raw)
    if base is not None:
        raw = _anchored(raw, places, base, origin=origin)
    suite = validated(Suite, raw, origin=origin)
    suite._written.update({where: prefix + place for where, (prefix, place) in places.items()})  # noqa: SLF001  its own room
    suite._origin = origin  # noqa: SLF001  likewise
    return suite


def validated(kind: type[AnyPart], raw: dict[Any, Any], *, origin: str) -> AnyPart:
    """Validate raw values as a part of a suite.

    Raises:
        ConfigError: one line per fault.
    """
    try:
        # JSON has no tuples and no paths, so that strictness (a number in quotes is no number) leaves those alone.
        return kind.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        faults = [_fault(origin, fault) for fault in found if not _follows(fault, found)]
        raise ConfigError("\n".join(faults)) from error


def _follows(fault: Any, others: list[Any]) -> bool:
    """Say whether a list is too short only because its items were refused."""
    where = fault["loc"]
    return fault["type"] == "too_short" and any(
        other is not fault and other["loc"][: len(where)] == where for other in others
    )


def _fault(origin: str, fault: Any) -> str:
    """Put one of pydantic's faults into our words: file, key, expected, got, cure."""
    # The tag pydantic adds to the path of a union is no key of the file.
    key = ".".join(str(part) for part in fault["loc"] if part not in VARIANT_KINDS) or "the whole file"
    cure = _CURES.get(fault["type"], "mend the value; `trtbench schema` says what each key takes")
    expected = _EXPECTED.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").removeprefix(
        "Input should be "
    )
    expected = expected.format(**fault.get("ctx", {}))
    is_scalar = not isinstance(fault["input"], (dict, list, tuple, BaseModel))
    got = "nothing" if fault["type"] == "missing" else repr(fault["input"]) if is_scalar else ""
    return f"{origin}: {key}: expected {expected}{f', got {got}' if got else ''}; {cure}"


def _expanded(place: str, *, key: str, origin: str) -> str:
    """Put the value of an environment variable where ${NAME} stands.

    Raises:
        ConfigError: it is not set.
    """
    for name in re.findall(r"\$\{(\w+)\}", place):
        if name not in os.environ:
            cure = f"set it: {name}=... trtbench ..."
            raise ConfigError(f"{origin}: {key}", expected=f"the variable {name} to be set", got="nothing", cure=cure)
        place = place.replace(f"${{{name}}}", str(Path(os.environ[name]).absolute()))
    return place


def _places(raw: dict[Any, Any]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return where a raw suite names a path: (section, key) -> (prefix, path)."""
    found = {}
    for section, key, prefix in _PATHS:
        part = raw.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(value, str) and value.startswith(prefix):
            found[section, key] = (prefix, value.removeprefix(prefix))
    return found


def _anchored(
    raw: dict[Any, Any], places: dict[tuple[str, str], tuple[str, str]], base: Path, *, origin: str
) -> dict[Any, Any]:
    """Resolve the relative paths of a suite against the folder of its file, and ${NAME} by the environment."""
    raw = dict(raw)
    for (section, key), (prefix, place) in places.items():
        expanded = _expanded(place, key=f"{section}.{key}", origin=origin)
        raw[section] = {**raw[section], key: f"{prefix}{base / expanded}"}
    return raw
