"""report.html: one file that holds everything, asks no network for anything, and works without its script too."""

from __future__ import annotations

import functools
import io
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context

from trtbench.jsonable import to_jsonable
from trtbench.report.answer import RECOMMENDED, by_answer, card, parts
from trtbench.report.columns import Column
from trtbench.report.details import details
from trtbench.report.figures_style import DARK, settle_layout, tip_of
from trtbench.report.remarks import caveats, footnotes, observed
from trtbench.report.tables import columns_of, legend, row_lines
from trtbench.report.units import significant
from trtbench.report.words import file_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from trtbench.report.columns import Line
    from trtbench.report.document import Report
    from trtbench.report.figures import Drawing

_DECIDES = (
    *("variant", "precision", "backend", "batch_size", "top1", "drop_pp", "p50_ms"),
    *("times_as_fast_as_eager", "times_as_fast_as_dense_fp32", "engine_bytes"),
)
# On a wide screen only, for those who ask: what decides fits 1280 px without them, and report.csv has all.
_ASIDE = (
    *("status", "p90_ms", "p99_ms", "compute_ms", "throughput_ips", "ms_per_image", "host_to_host_p50_ms"),
    *("throughput_mode_ms_per_image", "verdict", "cut", "params", "macs", "over_limit_pp", "loss"),
    *("device_memory_bytes", "host_memory_bytes", "energy_j", "role", "device"),
)
# On a phone each row is a card of these, by what it writes above them
_ON_A_PHONE = dict.fromkeys(("precision", "backend", "became"), "")
_ON_A_PHONE |= {"p50_ms": "p50 ms", "drop_pp": "drop pp", "engine_bytes": "MB"}
ALL_ROWS = (*_DECIDES, *_ASIDE)
_BECAME = 4  # the place of the column that says what became of a row, after what names it
_COLOUR = re.compile("|".join(DARK), re.IGNORECASE)
_REFERENCE = re.compile(r"(?<=#)(?=[\w.-]+\)?$)")  # the start of the name in "#name" and "url(#name)"
_FONTS = re.compile(r"font-family: [^;]*;? ?")  # the page's font serves
_POINTS = re.compile(r"[\d.]+")


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows, what it is sorted by ("" goes last), its CSS classes, and what a phone writes above it."""

    text: str
    value: str
    style: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the table of all rows, with the numbers of its notes."""

    cells: tuple[Cell, ...]
    marks: tuple[str, ...]
    style: str


def render_html(report: Report, *, drawings: Sequence[Drawing] = ()) -> str:
    """Return report.html."""
    marks = footnotes(report.rows)
    template = templates().get_template("report.html.jinja")
    told = by_answer(list(zip(report.rows, parts(report.rows, report.decision), strict=True)), report.decision)
    became = {row.name: part for row, part in told}
    lines = [replace(line, rows=report.rows) for line in row_lines([row for row, _ in told], marks=marks)]
    shown = [*columns_of(ALL_ROWS, lines, "html")]
    word = Column(key="became", header="Answer", value=lambda line: became[line.row.name].word, align="left")
    shown.insert(_BECAME, word)
    entries = [
        Entry(
            cells=tuple(
                Cell(one.cell(line), _sorted_by(one, line), _style(one), _ON_A_PHONE.get(one.key, "")) for one in shown
            ),
            marks=tuple(line.marks.split()),
            style="winner" if (part := became[line.row.name]).word == RECOMMENDED else "out" if part.is_out else "",
        )
        for line in lines
    ]
    return template.render(
        report=report,
        card=card(report.rows, report.decision),
        file=file_line(report.decision),
        headers=[(column.title, _style(column)) for column in shown],
        legend=legend(shown),
        lines=entries,
        notes=marks.texts,
        observations=observed(report),
        caveats=[*caveats(report.rows)],
        why=report.beaten,
        figures=[
            (one, Markup(inline_svg(one.figure, name=one.name, label=one.caption)))  # noqa: S704  matplotlib escapes
            for one in drawings
        ],
        tables=details(report.rows, "html"),
        machine=_machine(report.environment),
        blocks=_blocks(report),
        colours=[(colour_variable(light), light, dark) for light, dark in DARK.items()],
    )


@functools.cache
def templates() -> Environment:
    """Return the templates of pages."""
    loader = PackageLoader("trtbench.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals["source"] = functools.partial(_source, environment)
    return environment


def _source(environment: Environment, name: str) -> Markup:
    """Return a file beside the template as it is: our own style and script."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])  # noqa: S704  part of the package


def _style(column: Column) -> str:
    kinds = ["word" if column.align == "left" else "number"]
    return " ".join(kinds + ["aside"] * (column.key in _ASIDE) + [f"phone {column.key}"] * (column.key in _ON_A_PHONE))


def _sorted_by(column: Column, line: Line) -> str:
    value = column.value(line)
    return "" if value is None else str(value)


def _machine(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader asks first of the machine, as far as it was recorded; the whole record stands below it."""
    model, cores = _found(environment, "host", "cpu", "model"), _found(environment, "host", "cpu", "logical_cores")
    system = [_found(environment, "host", key) for key in ("os", "kernel", "container")]
    facts = {
        "CPU": f"{model}, {cores} logical cores" if model else "",
        "GPU": ", ".join(_found(gpu, "name") for gpu in _listed(environment, "gpus")),
        "Driver": _found(environment, "driver", "version"),
        "System": ", ".join(one for one in system if one),
        "Python": _found(environment, "host", "python"),
        "Packages": ", ".join(
            f"{_found(one, 'module')} {_found(one, 'version')}" for one in _listed(environment, "packages")
        ),
    }
    return [(name, value) for name, value in facts.items() if value]


def _found(record: Any, *keys: str) -> str:
    """Return a value of a record that says what it likes, as text; empty where it is not there."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return "" if record is None else str(record)


def _listed(record: Mapping[str, Any], key: str) -> list[Any]:
    found = record.get(key)
    return found if isinstance(found, list) else []


def _blocks(report: Report) -> list[tuple[str, str, str]]:
    """Return (id, title, YAML) of what was asked and where, as the report has it."""
    seconds = {stage: f"{significant(value)} s" for stage, value in report.stages.items()}
    run = {"run": report.run_id, "created": report.created, "command": " ".join(report.argv), "git": dict(report.git)}
    found = [
        ("environment-all", "Environment, whole", report.environment),
        ("telemetry", "What the devices did meanwhile", report.telemetry),
        ("suite", "Suite, every key with its default", report.suite),
        ("run", "Run", {**run, "stages": seconds}),
    ]
    return [
        (name, title, yaml.safe_dump(to_jsonable(dict(values)), sort_keys=False, allow_unicode=True, width=100))
        for name, title, values in found
        if values
    ]


def inline_svg(figure: Figure, *, name: str, label: str) -> str:
    """Return an `<svg>` element for an HTML page that may hold others.

    Args:
        figure: what to draw; artists that `figures_style.tip` was called for carry a `<title>`.
        name: makes every id in it unique within the page.
        label: what a screen reader says of the whole.
    """
    settle_layout(figure)
    file = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(file.getvalue())  # noqa: S314  matplotlib has written it a line above
    for parent in list(root.iter()):
        for child in [one for one in parent if _local(one.tag) in {"metadata", "style"}]:
            parent.remove(child)
    for element in root.iter():
        _settle(element, name=name)
    width = _POINTS.match(root.attrib.pop("width"))
    root.attrib.pop("height")
    root.attrib |= {"role": "group", "aria-label": label}
    if width:
        root.set("style", f"--natural: {float(width.group()) * 4 / 3:.0f}px")
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def colour_variable(colour: str) -> str:
    """Return the CSS variable that stands for a colour of `figures_style`."""
    return f"--c-{colour.removeprefix('#').lower()}"


def _settle(element: ET.Element, *, name: str) -> None:
    """Take off namespaces, make names unique, let colours follow the page, and tell what the element is."""
    element.tag = _local(element.tag)
    text = tip_of(element.get("id", ""))
    if text is not None:
        del element.attrib["id"]
        element.attrib |= {"class": "tip", "role": "img", "aria-label": text}
    if element.get("id", "").startswith("matplotlib.axis"):
        element.set("aria-hidden", "true")  # the table below the figure reads better
    attributes = {_local(key): _attribute(_local(key), value, name=name) for key, value in element.attrib.items()}
    element.attrib.clear()
    element.attrib.update(attributes)
    if text is not None:
        title = ET.Element("title")
        title.text = text
        element.insert(0, title)


def _attribute(key: str, value: str, *, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in {"href", "clip-path"}:
        return _REFERENCE.sub(f"{name}-", value)
    if key == "style":
        return _COLOUR.sub(lambda found: f"var({colour_variable(found.group())})", _FONTS.sub("", value))
    return value


def _local(name: str) -> str:
    return name.rpartition("}")[2]
