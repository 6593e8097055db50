"""Pages that are made when the site is: the home page from README.md, the keys of suites, the command line, schemas."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.cli.main import groups
from trtbench.cli.options import command_of
from trtbench.report.document import report_schema
from trtbench.suite import suite_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[1]
_OURS = re.compile(
    r"https://(?:github\.com/trtbench/trtbench/blob|raw\.githubusercontent\.com/trtbench/trtbench)/main/docs/"
)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file holds."""
    from mkdocs.structure.files import File

    for path, content in made().items():
        files.append(File.generated(config, path, content=content))
    return files


def made() -> dict[str, str]:
    """Return what no file holds, by its path on the site."""
    return {
        "index.md": home_page(),
        "reference/suite.md": suite_page(),
        "reference/cli.md": cli_page(),
        "suite.schema.json": json.dumps(suite_schema(), indent=2),
        "report.schema.json": json.dumps(report_schema(), indent=2),
    }


def home_page() -> str:
    """Return the README with links that stay on the site."""
    return _OURS.sub("", (_ROOT / "README.md").read_text(encoding="utf-8"))


def suite_page() -> str:
    """Return a table of keys for each part of a suite, as its schema has them."""
    schema = suite_schema()
    parts = {"Suite": schema, **schema["$defs"]}
    lines = [
        "# Keys of a suite",
        "",
        "Made from the models that validate suite files; `trtbench schema` prints them as JSON Schema.",
        "",
    ]
    for name, part in parts.items():
        lines += [
            f"## {name}",
            "",
            _cell(part.get("description", "")),
            "",
            "| key | takes | default | |",
            "|---|---|---|---|",
        ]
        for key, about in part["properties"].items():
            default = "needed" if key in part.get("required", ()) else _default(about.get("default"))
            lines.append(f"| `{key}` | {_takes(about)} | {default} | {_cell(about['description'])} |")
        lines.append("")
    return "\n".join(lines)


def _takes(about: dict[str, Any]) -> str:
    """Say in words and links what values a key may have."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := about.get("anyOf") or about.get("oneOf") or about.get("allOf"):
        return " or ".join(dict.fromkeys(_takes(one) for one in choices))
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return ", ".join(f"`{one}`" for one in about["enum"])
    if about.get("type") == "array":
        return f"a list: {_takes(about.get('items') or about['prefixItems'][0])}"
    kind = {"integer": "whole number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}
    signs = {"minimum": "&ge;", "exclusiveMinimum": "&gt;", "maximum": "&le;", "exclusiveMaximum": "&lt;"}
    ends = [f"{sign} {about[key]:g}" for key, sign in signs.items() if key in about]
    return " ".join([kind.get(about.get("type", ""), about.get("type", "any")), *ends])


def _default(value: Any) -> str:
    is_part = isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
    return "as its own keys say" if is_part else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    """Return text as one cell of a table, or one paragraph, its brackets no links."""
    return " ".join(re.sub(r"([|\[*<])", r"\\\1", text).split())


def cli_page() -> str:
    """Return what `--help` says of every verb."""
    lines = [
        "# Command line",
        "",
        "Made from the parser. [Exit codes](../ci.md) are the same for all verbs; `--device` goes before the verb;",
        "`--quiet`, `--verbose` and `--log-level` may stand before it too.",
        "",
    ]
    for title, group in groups().items():
        lines += [f"## {title}", ""]
        for name, verb in group.items():
            command = command_of(verb)
            lines += _verb(command, f"trtbench {name}")
            for inner in getattr(command, "commands", {}).values():
                lines += _verb(inner, f"trtbench {name} {inner.name}")
    return "\n".join(lines)


def _verb(command: Any, name: str) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    yield from (f"### {name}", "", (command.help or "").replace("\n\n", "\n\n").strip(), "")
    yield from (f"`{command.get_usage(context).removeprefix('Usage: ')}`", "")
    records = [one.get_help_record(context) for one in command.get_params(context)]
    if told := [one for one in records if one is not None and not one[0].startswith("-h")]:
        yield from ("| option | |", "|---|---|")
        yield from (f"| <code>{_option(option)}</code> | {_cell(about)} |" for option, about in told)
        yield ""


def _option(text: str) -> str:
    """Return an option as HTML in one cell of a table."""
    return html.escape(text).replace("|", "&#124;")
