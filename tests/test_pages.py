"""Every command that the documentation shows parses as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer
import yaml

from trtbench.cli.main import verbs

_DOCS = Path(__file__).parents[1] / "docs"


def commands(script: str) -> list[str]:
    """Return the lines of a shell script that call trtbench, what a backslash continues in one."""
    lines = (line.strip() for line in script.replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith("trtbench ")]


def parse(line: str) -> None:
    """Read a command line as the real parser does, and run nothing."""
    _, name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(verbs()[name])
    while inner := getattr(command, "commands", None):
        command = inner[arguments.pop(0)]
    command.make_context(name, arguments)


def test_the_example_of_a_gate_names_only_what_exists() -> None:
    jobs = yaml.safe_load((_DOCS / "examples" / "gate.yml").read_text(encoding="utf-8"))["jobs"]
    found = [line for job in jobs.values() for step in job["steps"] for line in commands(step.get("run", ""))]

    assert [line.split()[1] for line in found] == ["run", "compare"]
    for line in found:
        parse(line)


def test_a_command_that_the_parser_refuses_fails() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        parse("trtbench plan quickstart --no-such-option")
