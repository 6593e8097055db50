"""The documentation: its commands parse as they stand, its tables name what there is, its site has every page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import trtbench
from docs.hooks import made
from trtbench import errors
from trtbench._optional import is_installed
from trtbench.cli.main import verbs
from trtbench.cli.options import command_of
from trtbench.precision import PRECISIONS
from trtbench.suite import parse_suite, suite_schema

_ROOT = Path(__file__).parents[1]
_DOCS = _ROOT / "docs"
PAGES = (_ROOT / "README.md", *sorted(_DOCS.glob("*.md")))


def _page(name: str) -> str:
    return (_DOCS / name).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the blocks of a page in its order, each with its language; the README's indented ones are of a shell."""
    found = re.finditer(r"^```(\w+)\n(.*?)^```$|(?<=\n\n)((?: {4}\S[^\n]*\n)+)", page, re.MULTILINE | re.DOTALL)
    return [(one[1] or "bash", one[2] or one[3]) for one in found]


def lines(script: str) -> list[str]:
    """Return the commands of a shell script, each with what a backslash or an open quote continues."""
    found = re.findall(r'(?:"[^"]*"|[^"\n])+', script.replace("\\\n", " "))
    return [line.strip() for line in found]


def shell_lines(page: str) -> list[str]:
    """Return the commands that a page shows."""
    return [line for kind, text in blocks(page) if kind == "bash" for line in lines(text)]


def test_the_commands_of_the_readme_are_its_indented_lines_alone() -> None:
    shown = shell_lines((_ROOT / "README.md").read_text(encoding="utf-8"))

    assert {line.split()[0] for line in shown} == {"make", "pip", "trtbench", "docker"}


def commands(page: str) -> list[str]:
    """Return the commands of a page that call trtbench."""
    return [line for line in shell_lines(page) if line.startswith("trtbench ")]


def parse(line: str) -> None:
    """Read a command line as the real parser does, and run nothing."""
    _, *arguments = shlex.split(line, comments=True)
    if arguments[0] == "--version":
        return
    if arguments[0] == "--device":  # before any verb
        del arguments[:2]
    name = arguments.pop(0)
    command = command_of(verbs()[name])
    while inner := getattr(command, "commands", None):
        command = inner[arguments.pop(0)]
    command.make_context(name, arguments)


def test_the_example_of_a_gate_names_only_what_exists() -> None:
    jobs = yaml.safe_load((_DOCS / "examples" / "gate.yml").read_text(encoding="utf-8"))["jobs"]
    found = [line for job in jobs.values() for step in job["steps"] for line in lines(step.get("run", ""))]
    found = [line for line in found if line.startswith("trtbench ")]

    assert [line.split()[1] for line in found] == ["run", "compare"]
    for line in found:
        parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_parses(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert "```console" not in text  # there a prompt would hide a command from this test
    for line in commands(text):
        parse(line)


def test_the_pages_show_most_verbs() -> None:
    shown = {line.split()[1] for page in PAGES for line in commands(page.read_text(encoding="utf-8"))}

    assert len(shown & verbs().keys()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_names_what_is_public(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        compile(block, page.name, "exec")
        assert set(re.findall(r"\btrtbench\.(\w+)\(", block)) <= set(trtbench.__all__)


@pytest.mark.parametrize(
    ("page", "names"), [("your-model.md", ["mine"]), ("other-networks.md", ["detector", "ranker"])]
)
def test_the_suites_of_a_page_are_some(page: str, names: list[str], tmp_path: Path) -> None:
    texts = re.findall(r"^```yaml\n(name: .*?)^```$", _page(page), re.MULTILINE | re.DOTALL)

    assert [parse_suite(text, origin=page, base=tmp_path).name for text in texts] == names


def test_the_score_of_a_page_is_a_number_for_each_image(tmp_path: Path) -> None:
    page = blocks(_page("other-networks.md"))
    whole, part = (yaml.safe_load(text) for kind, text in page[:3] if kind == "yaml")
    (code,) = (text for kind, text in page if "def found" in text)
    space: dict[str, Any] = {}

    exec(code, space)  # noqa: S102  our own page

    suite = parse_suite(yaml.safe_dump(whole | part), origin="detector.yaml", base=tmp_path)
    assert (suite.score, suite.decision.max_score_drop) == ("metric:found", 0.01)
    assert space["found"]({"scores": np.eye(2, 5)}, ["a.png", "b.png"]) == [1, 1]


def test_a_command_that_the_parser_refuses_fails() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        parse("trtbench plan quickstart --no-such-option")


def test_the_extras_are_those_of_the_package() -> None:
    extras = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines = re.findall(r"^\| (`[a-z].*?) \|", _page("install.md").partition("## On a host")[0], re.MULTILINE)

    assert sorted(re.findall(r"`([^`]+)`", " ".join(lines))) == sorted(extras)


def test_the_precisions_are_those_of_the_table() -> None:
    lines = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \|$", _page("precisions.md"), re.MULTILINE)

    assert [name for name, *_ in lines] == list(PRECISIONS)
    for name, _, codes, others in lines:
        assert codes.split(",")[0] == (PRECISIONS[name].codes or "none")
        assert others.startswith(PRECISIONS[name].half or ("tf32" if name == "tf32" else "fp32"))


def test_the_exit_codes_are_those_of_the_errors() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d) \|", _page("ci.md"), re.MULTILINE)}

    assert told == {0, *(one.exit_code for one in vars(errors).values() if hasattr(one, "exit_code"))}


def test_the_api_has_every_public_name_once() -> None:
    shown = re.findall(r"^::: trtbench\.(\w+)$", _page("reference/api.md"), re.MULTILINE)

    assert sorted(shown) == sorted(set(trtbench.__all__) - {"__version__"})


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return made()


def test_the_site_has_every_page_and_those_that_are_made(pages: dict[str, str]) -> None:
    nav = (_ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    written = {str(page.relative_to(_DOCS)) for page in _DOCS.rglob("*.md") if "evidence" not in page.parts}

    assert sorted(re.findall(r"[\w/-]+\.md", nav)) == sorted(written | {page for page in pages if page.endswith(".md")})


def test_a_key_or_an_option_that_a_page_names_is_one(pages: dict[str, str]) -> None:
    text, schema = "\n".join(page.read_text(encoding="utf-8") for page in PAGES), suite_schema()
    refs = {key: about["$ref"].rpartition("/")[2] for key, about in schema["properties"].items() if "$ref" in about}
    named = set(re.findall(rf"`({'|'.join(refs)})\.(\w+)", text)) - {("model", "onnx")}  # a file
    options = {one for code in re.findall(r"`([^`\n]+)`", text) for one in re.findall(r"(?<![\w-])--[a-z-]+", code)}
    others = {"--version", "--system-site-packages"}  # of no verb, of Python's venv

    assert len(named) > 5
    assert [one for one in named if one[1] not in schema["$defs"][refs[one[0]]]["properties"]] == []
    assert [one for one in options - others if one not in pages["reference/cli.md"]] == []


def test_the_made_pages_have_every_verb_and_every_key(pages: dict[str, str]) -> None:
    assert {
        name.partition(" ")[0] for name in re.findall(r"^### trtbench (.+)$", pages["reference/cli.md"], re.MULTILINE)
    } == set(verbs())
    assert re.search(
        r"^\| <code>--log-level &lt;debug&#124;info.*</code> \| What is .* \|$", pages["reference/cli.md"], re.MULTILINE
    )
    for part in (schema := suite_schema(), *schema["$defs"].values()):
        for key in part["properties"]:
            assert f"| `{key}` |" in pages["reference/suite.md"]
    assert "](https://github.com/trtbench/trtbench/blob/main/docs/" not in pages["index.md"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if not is_installed("mkdocs"):
        pytest.skip("mkdocs is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]

    assert subprocess.run(command, cwd=_ROOT, check=False).returncode == 0
