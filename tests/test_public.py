"""The public names load when they are used, and each is documented."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trtbench


@pytest.mark.parametrize("name", [name for name in trtbench.__all__ if not name.startswith("__")])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(trtbench, name))


def test_the_names_are_listed_and_others_are_refused() -> None:
    assert set(dir(trtbench)) == set(trtbench.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = trtbench.no_such_name  # type: ignore[attr-defined]  # which mypy sees too


def test_a_type_checker_sees_every_public_name() -> None:
    """`__getattr__` alone would make each of them Any."""
    tree = ast.parse(Path(trtbench.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0
        for alias in node.names
        if alias.asname is not None
    }

    assert seen == trtbench._HOMES


@pytest.mark.slow
def test_a_type_checker_knows_what_run_takes_and_gives(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text(
        "import trtbench\n"
        "reveal_type(trtbench.run)\n"
        "reveal_type(trtbench.run('quickstart').best)\n"
        "trtbench.run(3)\n"
        "trtbench.run('quickstart', argv=['trtbench'])\n"
        "trtbench.load('bundle').predict(['7.png'], top='3')\n"
    )

    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", str(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(trtbench.__file__).parents[1])},
    ).stdout.splitlines()
    ours = [line for line in found if line.startswith("code.py") and "defined in" not in line]

    assert [re.sub(r"^code.py:(\d+):(\d+:)? (\w+):.*", r"\1 \3", line) for line in ours] == [
        *("2 note", "3 note", "4 error", "5 error", "6 error")
    ]
    assert re.search(r"-> trtbench\.interface\.RunReport", ours[0])
    assert "trtbench.rows.Row" in ours[1]
