"""Suite files: YAML to a suite, its paths resolved; and the text that `trtbench init` writes."""

from __future__ import annotations

import json
import os
import re
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trtbench.errors import ConfigError
from trtbench.foreign import MAX_YAML, YamlError, compose_yaml, parse_yaml, read_file, reason
from trtbench.suite.base import validated
from trtbench.suite.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable

# (section, key, what stands before the path)
_PATHS = (
    ("model", "checkpoint", ""),
    ("model", "name", "onnx:"),
    ("calibration", "manifest", ""),
    ("data", "source", "folder:"),
    ("data", "classes", ""),
)


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
            text = read_file(path, most=MAX_YAML).decode()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"suite {str(source)!r}",
                expected=f"a YAML file or one of the shipped suites ({', '.join(shipped_suites())})",
                got=reason(error),
                cure="`trtbench init` writes one",
            ) from error
        base = path.resolve().parent
    return parse_suite(text, origin=str(source), base=base)


def parse_suite(text: str, *, origin: str, base: Path | None = None) -> Suite:
    """Validate the text of a suite.

    Raises:
        ConfigError: one line per fault, each with file, line, column, key, expectation, finding and cure.
    """
    try:
        raw = parse_yaml(text)
    except YamlError as error:
        raise ConfigError(
            f"{origin}{_shown(error.mark)}: not valid YAML", got=str(error), cure="mend the line named"
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
    suite = validated(Suite, raw, origin=origin, locate=partial(_place_in, cache(partial(compose_yaml, text))))
    suite._written.update({where: prefix + place for where, (prefix, place) in places.items()})  # noqa: SLF001  its own room
    suite._origin = origin  # noqa: SLF001  likewise
    return suite


def _place_in(composed: Callable[[], yaml.Node | None], path: tuple[int | str, ...]) -> str:
    """Return ":line:column" of a key or an item of YAML, or of the last one on the way to it; "" of the whole."""
    node, mark = composed(), None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            pairs = [(item, item) for item in node.value[part : part + 1]]
        else:
            break
        if not pairs:
            break
        key, node = pairs[-1]
        mark = key.start_mark
    return _shown(mark)


def _shown(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"


def suite_template(*, model: str, data: str, checkpoint: Path | None) -> str:
    """Return the text of a suite for this model and these images, commented and ready to edit.

    Paths are written as given: they are taken from the folder of the suite's file.
    """
    if model.startswith("onnx:"):
        return _TEMPLATE.format(model=json.dumps(model), data=json.dumps(data), weights="", variants="")
    augment = ", augment: {crop_padding: 2}" if data == "digits" else ""
    weights = (
        f"\n  checkpoint: {json.dumps(str(checkpoint))}"
        if checkpoint is not None
        else f"\n  train: {{epochs: 100, lr: 0.1, schedule: one-cycle{augment}}}"
    )
    variants = _TEMPLATE_VARIANTS.format(augment=augment)
    return _TEMPLATE.format(model=json.dumps(model), data=json.dumps(data), weights=weights, variants=variants)


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


_TEMPLATE = """\
# trtbench suite; `trtbench schema` says what every key takes.
name: my-suite

data:
  source: {data}
  validation: 0.1              # share of the training images held out

model:
  name: {model}{weights}

variants:
  - {{kind: dense, name: dense}}
{variants}
calibration: {{per_class: 50}}

engines:
  - {{backend: auto, precisions: [fp32, int8]}}

decision: {{max_drop_pp: 1.0, objective: p50_ms, batch_size: 1}}
"""
_TEMPLATE_VARIANTS = """\
  - {{kind: dense, name: dense-tuned, fine_tune: true}}   # the control: same budget, nothing pruned
  - {{kind: channels, name: channels-30, ratio: 0.3}}
  - {{kind: channels, name: channels-50, ratio: 0.5}}

fine_tune: {{epochs: 10, lr: 0.01{augment}}}   # one budget for every variant
"""
