"""The house rules that a reader can check with `ast` and `sys.modules`."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trtbench

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = Path(trtbench.__file__).parent
_TESTS = Path(__file__).parent
_PAGE = (_TESTS.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
# A room imports only rooms that stand before it.
_ORDER = (
    "errors",
    "ending",
    "precision",
    "jsonable",
    "foreign",
    "records",
    "rows",
    "_optional",
    "disk",
    "store",
    "confined",
    "progress",
    "environment",
    "suite",
    "data",
    "models",
    "train",
    "graph",
    "compress",
    "calibrate",
    "engines",
    "make",
    "bench",
    "decide",
    "report",
    "running",
    "shipping",
    "fleet",
    "steps",
    "studies",
    "cli",
    "interface",
)
_LONGEST = 450
_HEAVY = ("torch", "onnxruntime", "onnx", "cupy", "tensorrt", "pycuda", "matplotlib", "sklearn", "scipy")


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "trtbench" and len(parts) > 1 else None


def _imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    """Every module of the package, by its path within it."""
    paths = sorted(_PACKAGE.rglob("*.py"))
    return {path.relative_to(_PACKAGE): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def test_a_room_imports_only_rooms_that_stand_before_it(trees: dict[Path, ast.Module]) -> None:
    rooms = {path: path.parts[0].removesuffix(".py") for path in trees}

    offenders = [
        f"{path} imports {module}"
        for path, tree in trees.items()
        if rooms[path] in _ORDER or len(path.parts) > 1
        for module in sorted(_imports(tree))
        if (other := _room(module)) in _ORDER and _ORDER.index(other) > _ORDER.index(rooms[path])
    ]

    assert offenders == []


def _name(path: Path) -> str:
    parts = ("trtbench", *path.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: what stands under TYPE_CHECKING does not."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from _run(node)


def _needs(tree: ast.Module, known: set[str]) -> set[str]:
    """Return which known modules one imports: a name that a package holds is the package's, unless it is a module."""
    found = set()
    for node in _run(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= known else {*names, node.module or ""}
    return found & known


def test_no_circle_in_the_package(trees: dict[Path, ast.Module]) -> None:
    """Imports inside functions count too, those for types alone do not."""
    known = {_name(path): tree for path, tree in trees.items()}

    graph = {name: _needs(tree, set(known)) - {name} for name, tree in known.items()}

    graphlib.TopologicalSorter(graph).prepare()


def test_no_module_is_longer_than_a_reader_keeps_in_mind() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _PACKAGE.rglob("*.py")}

    assert {path: length for path, length in lengths.items() if length > _LONGEST} == {}


def test_what_a_process_runs_stands_last_in_its_module(trees: dict[Path, ast.Module]) -> None:
    """What is defined behind it is not there when it runs: tests that import the module cannot see that."""
    early = [
        str(path.relative_to(_PACKAGE))
        for path, tree in trees.items()
        for place in tree.body[:-1]
        if isinstance(place, ast.If) and "__main__" in ast.unparse(place.test)
    ]

    assert early == []


def test_only_the_command_line_prints_or_exits(trees: dict[Path, ast.Module]) -> None:
    offenders = [
        f"{path}:{node.lineno} calls {node.func.id}"
        for path, tree in trees.items()
        if path.parts[0] != "cli" and path.name != "__main__.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"print", "exit", "quit", "input"}
    ]

    assert offenders == []


def test_every_legend_has_its_place(trees: dict[Path, ast.Module]) -> None:
    placeless = [
        f"{path}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "legend"
        if "loc" not in {keyword.arg for keyword in node.keywords}  # or it is searched for, with a warning when slow
    ]

    assert placeless == []


def _loaded_after(code: str, *, packages: tuple[str, ...] = _HEAVY) -> set[str]:
    """Return which of the packages are in sys.modules after running code in a fresh interpreter."""
    ask = f"import sys\n{code}\nprint(' '.join(m for m in {packages!r} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    return set(run.stdout.split("\n")[-2].split())


@pytest.mark.parametrize("code", ["import trtbench", "import trtbench.cli", "import trtbench.__init__"])
def test_importing_the_package_or_its_command_line_loads_no_heavy_package(code: str) -> None:
    assert _loaded_after(code) == set()


def test_showing_the_help_or_the_version_loads_no_heavy_package() -> None:
    code = (
        "import contextlib, io\n"
        "from trtbench.cli import main\n"
        "for sys.argv in (['trtbench', '--help'], ['trtbench', '--version']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()"
    )

    assert _loaded_after(code) == set()


def test_a_worker_of_onnx_runtime_loads_no_torch_and_no_pydantic() -> None:
    code = (
        "from trtbench.bench.worker import load_backend\n"
        "load_backend('trtbench.engines.onnxruntime.cpu:ONNXRUNTIME_CPU').facts()"
    )

    assert _loaded_after(code, packages=("torch", "pydantic", "onnxruntime")) == {"onnxruntime"}


def test_the_page_of_the_house_lists_its_rooms_in_their_order() -> None:
    found = re.search(r"<!-- rooms -->\n(.*?)\n<!-- rooms end -->", _PAGE, re.DOTALL)

    assert found is not None
    assert re.findall(r"`([a-z_]+)`", found.group(1)) == list(_ORDER)


def test_every_test_that_the_page_of_the_house_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", _PAGE))

    there = {
        name
        for path in _TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert named
    assert named <= there


def test_the_walks_are_short() -> None:
    walks = re.findall(r"^(An? [\w -]+): (\d+) hops", _PAGE, re.MULTILINE)

    most = {"A ratio from YAML to torch-pruning": 15, "An image to a count": 16, "A latency sample to the page": 15}
    assert walks
    assert all(int(hops) <= most.pop(title) for title, hops in walks)
    assert not most


@pytest.mark.slow
def test_the_walks_on_the_page_of_the_house_are_those_of_a_real_run() -> None:
    """After a change on the way: `python tests/walks.py`, and its output into docs/architecture.md."""
    found = re.search(r"<!-- walks -->\n```text\n(.*?)```\n<!-- walks end -->", _PAGE, re.DOTALL)

    run = subprocess.run([sys.executable, str(_TESTS / "walks.py")], check=True, capture_output=True, text=True)

    assert found is not None
    assert found.group(1) == run.stdout
