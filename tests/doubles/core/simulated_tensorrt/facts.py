"""What one major's Python API has: read from the committed file of names and signatures."""

from __future__ import annotations

import ast
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

API = Path(__file__).parents[2] / "api"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its name, its type as the bindings print it, and whether it may be left out."""

    name: str
    kind: str
    is_optional: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """The API of one version."""

    version: str
    classes: dict[str, dict[str, Any]]
    functions: dict[str, list[str]]
    constants: list[str]

    @property
    def major(self) -> int:
        """The major of TensorRT whose API this is: that of RTX is 11's."""
        return 11 if self.is_rtx else int(self.version.split(".")[0])

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX."""
        return "ComputeCapability" in self.classes


_current: Facts | None = None


def load(api: str) -> None:
    """Make one version's facts the current ones.

    Raises:
        ImportError: when other facts are loaded.
    """
    global _current  # noqa: PLW0603  one process has one TensorRT
    read = read_api(api)
    found = Facts(read["version"], read["classes"], read["functions"], read["constants"])
    if _current is not None and _current.version != found.version:
        raise ImportError(f"TensorRT {_current.version} is loaded; {found.version} needs a process of its own")
    _current = found


def read_api(name: str) -> dict[str, Any]:
    """Read a file of facts; one that says what it has beside another, or lacks, is joined with that."""
    own: dict[str, Any] = json.loads((API / name).read_text(encoding="utf-8"))
    if "like" not in own:
        return own
    joined = read_api(own["like"]) | {"version": own["version"]}
    for kind, fact in own["classes"].items():
        known = joined["classes"].setdefault(kind, fact)
        for part, members in fact.items():
            known[part] = known[part] | members if isinstance(members, dict) else members
    for kind, names in own["lacks"].items():
        for each in names:
            del joined["classes"][kind]["enum"][each]
    return joined


def current() -> Facts:
    """Give the facts in force."""
    assert _current is not None, "import tensorrt, not its parts"
    return _current


@functools.cache
def signature(text: str) -> tuple[Parameter, ...]:
    """Read a signature such as "(flags: int = 0) -> INetworkDefinition"."""
    tree = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(tree, ast.FunctionDef)
    given = tree.args.args
    required = len(given) - len(tree.args.defaults)
    return tuple(
        Parameter(each.arg, ast.unparse(each.annotation) if each.annotation else "object", place >= required)
        for place, each in enumerate(given)
    )
