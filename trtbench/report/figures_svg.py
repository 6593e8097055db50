"""A figure as SVG inside a page: text stays text, colours follow the page, and each point tells what it is."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from matplotlib import rc_context

from trtbench.report.figures_style import DARK, tip_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOUR = re.compile("|".join(DARK), re.IGNORECASE)
_REFERENCE = re.compile(r"(?<=#)(?=[\w.-]+\)?$)")  # the start of the name in "#name" and "url(#name)"
_FONTS = re.compile(r"font-family: [^;]*;? ?")  # the page's font serves
_POINTS = re.compile(r"[\d.]+")


def inline_svg(figure: Figure, *, name: str, label: str) -> str:
    """Return an `<svg>` element for an HTML page that may hold others.

    Args:
        figure: what to draw; artists that `figures_style.tip` was called for carry a `<title>`.
        name: makes every id in it unique within the page.
        label: what a screen reader says of the whole.
    """
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
    told = tip_of(element.get("id", ""))
    if told is not None:
        del element.attrib["id"]
        element.attrib |= {"class": "tip", "role": "img", "aria-label": told}
    if element.get("id", "").startswith("matplotlib.axis"):
        element.set("aria-hidden", "true")  # the table below the figure reads better
    attributes = {_local(key): _attribute(_local(key), value, name=name) for key, value in element.attrib.items()}
    element.attrib.clear()
    element.attrib.update(attributes)
    if told is not None:
        title = ET.Element("title")
        title.text = told
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
