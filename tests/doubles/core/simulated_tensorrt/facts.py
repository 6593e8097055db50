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
        """The first field of the version."""
        return int(self.version.split(".")[0])


_current: Facts | None = None


def load(api: str) -> None:
    """Make one version's facts the current ones.

    Raises:
        ImportError: when other facts are loaded.
    """
    global _current  # noqa: PLW0603  one process has one TensorRT
    read = json.loads((API / api).read_text(encoding="utf-8"))
    found = Facts(read["version"], read["classes"], read["functions"], read["constants"])
    if _current is not None and _current.version != found.version:
        raise ImportError(f"TensorRT {_current.version} is loaded; {found.version} needs a process of its own")
    _current = found


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
