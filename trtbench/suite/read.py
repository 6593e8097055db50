"""Suite files: YAML to a suite, its paths resolved; and the text that `trtbench init` writes."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
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
    from collections.abc import Callable, Mapping

_NARROW = 64  # channels: of fewer, multiples of 16, which INT8 likes best, leave a third of them no choice
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A suite as `trtbench init` proposes its data and its model, and `reasons` by key of its data.

    `per_class` is how many images of each class there are to calibrate on, `width` the channels of the narrowest layer,
    where that is known, `is_quantized` says that a graph came with Q/DQ pairs of its own, `notes` what was seen on the
    way.
    """

    suite: Suite
    reasons: Mapping[str, str]
    per_class: int
    width: int | None = None
    is_quantized: bool = False
    notes: tuple[str, ...] = ()


def suite_template(proposal: Proposal, *, base: Path) -> str:
    """Return the text of a proposed suite, commented and ready to edit; its file is to stand in the folder `base`."""
    suite = proposal.suite
    raw = suite.model_dump(mode="json", exclude_unset=True, include={"data", "model"})
    for (section, key), (prefix, place) in _places(raw).items():
        raw[section][key] = prefix + os.path.relpath(Path(place).expanduser(), base)
    is_graph = suite.model.name.startswith("onnx:")
    augment = ", augment: {crop_padding: 2}" if suite.data.source == "digits" else ""
    step = ", round_to: 8" if proposal.width is not None and proposal.width < _NARROW else ""
    of_graph = _TEMPLATE_STRIPPED if proposal.is_quantized else ""
    parts = (suite.model.name.removeprefix("onnx:"), suite.data.source)
    stems = (Path(part.rpartition(":")[2]).name.partition(".")[0] for part in parts)
    return _TEMPLATE.format(
        notes="".join(f"# {note}\n" for note in proposal.notes),
        name=re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(stems)).strip("-_")[:60] or "my-suite",
        data=_lines(raw["data"], proposal.reasons),
        model=_lines(raw["model"], {}),
        variants=of_graph if is_graph else _TEMPLATE_VARIANTS.format(augment=augment, step=step),
        per_class=proposal.per_class,
    )


def _lines(part: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    lines = (f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in part.items())
    said = (f"{line}  # {reasons[key]}" if key in reasons else line for key, line in zip(part, lines, strict=True))
    return "\n".join(said)


def _expanded(place: str, *, key: str, origin: str) -> str:
    """Put the value of an environment variable where ${NAME} stands; ConfigError where it is not set."""
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
{notes}name: {name}

data:
{data}

model:
{model}

variants:
  - {{kind: dense, name: dense}}
{variants}
calibration: {{per_class: {per_class}}}   # training images of each class that INT8 gets its scales from

engines:
  - {{backend: auto, precisions: [fp32, int8]}}   # auto: TensorRT where it is, else ONNX Runtime on the CPU

decision: {{max_drop_pp: 1.0, objective: p50_ms, batch_size: 1}}   # what is best within which limits
"""
_TEMPLATE_STRIPPED = """\
  - {kind: stripped, name: stripped}   # the float graph under its own Q/DQ pairs: for our INT8 beside them
"""
_TEMPLATE_VARIANTS = """\
  - {{kind: dense, name: dense-tuned, fine_tune: true}}   # the control: same budget, nothing pruned
  - {{kind: channels, name: channels-30, ratio: 0.3{step}}}
  - {{kind: channels, name: channels-50, ratio: 0.5{step}}}

fine_tune: {{epochs: 10, lr: 0.01{augment}}}   # one budget for every variant
"""
