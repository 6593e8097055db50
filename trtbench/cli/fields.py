"""Options from the parts of a suite: each is a field's, with its name, its type and its description."""

from __future__ import annotations

import inspect
import re
import types
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbench.cli.given import Only
    from trtbench.suite.base import Part

# What makes a variant one of its suite, and whether it is trained, which --epochs says: no options of a step.
OF_SUITES = ("kind", "name", "after", "fine_tune")
_PLAIN = (bool, int, float, Path)
_SENTENCE = re.compile(r"[a-z][a-z-]* [^|]")  # not the name of a choice


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldOption:
    """An option that fills keys of a suite with a value of one of its types, `members`."""

    name: str
    keys: tuple[str, ...]
    members: tuple[Any, ...]
    help: str
    is_needed: bool
    rule: Only | None

    @property
    def kind(self) -> Any:
        """The type Typer reads it as; a list of texts stands for a tuple, a text for what is of more than one type."""
        if any(get_origin(one) is tuple for one in self.members):
            return list[str]
        kinds = {type(choice) for one in self.members for choice in _choices(one)} or set(self.members)
        return kinds.pop() if len(kinds) == 1 and kinds <= set(_PLAIN) else str

    def parameter(self) -> inspect.Parameter:
        """Return it as Typer takes it: None where it is not given."""
        kind = self.kind
        flags = f"--{self.name}/--no-{self.name}" if kind is bool else f"--{self.name}"
        return inspect.Parameter(
            self.name.replace("-", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.is_needed else None,
            annotation=Annotated[
                kind if self.is_needed else kind | None,
                typer.Option(flags, help=self.help, metavar=self._metavar),
            ],
        )

    @property
    def _metavar(self) -> str | None:
        if self.kind != list[str]:
            return None
        return "TEXT" if self._item is str else "A,B,..."

    @property
    def _item(self) -> Any:
        """The type of each of several values."""
        return next(_members(get_args(one)[0])[0] for one in self.members if get_origin(one) is tuple)

    def read(self, value: Any) -> Any:
        """Return the value as a suite has it; several are joined by commas, or the option is given several times.

        Raises:
            ConfigError: no numbers where these are wanted.
        """
        if isinstance(value, str):
            return int(value) if int in self.members and value.isdigit() else value
        if not isinstance(value, list):
            return value
        item = self._item
        if item is str:
            return value
        pieces = [piece for text in value for piece in text.split(",")]
        if item not in {int, float}:
            return pieces
        try:
            return [item(piece) for piece in pieces]
        except ValueError as error:
            what, example = ("whole numbers", "1,8") if item is int else ("numbers", "0.5,0.5,0.5")
            expected, cure = f"{what} joined by commas", f"e.g. --{self.name} {example}"
            raise ConfigError(f"--{self.name}", expected=expected, got=repr(",".join(value)), cure=cure) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a suite whose fields a verb takes as options.

    Args:
        key: where the part stands in a suite, as `model.train`.
        part: its class in `trtbench.suite`, by name: it is imported when the verb is asked for, so --help is instant.
        fields: those that are options; all by default.
        but: those that are none.
        names: field -> option, where they differ.
        needs: the field that must be given.
        rule: when the options apply.
        kind: the variant whose usual budget a training budget starts from, by its class's name.
        has_defaults: whether what is not given is as in a suite that says nothing, which the help then tells.
    """

    key: str
    part: str
    fields: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    rule: Only | None = None
    has_defaults: bool = True
    kind: str = ""

    @property
    def model(self) -> type[Part]:
        """The part's class."""
        from trtbench import suite

        found: type[Part] = getattr(suite, self.part)
        return found

    @property
    def usual(self) -> Part | None:
        """The usual budget of the variant, where there is one."""
        from trtbench import suite

        return getattr(suite, self.kind).usual_budget if self.kind else None

    def options(self) -> Iterator[FieldOption]:
        """Yield an option for each field, and for each field of a part within the part."""
        usual = (self.usual or usual_part(self.key) or _defaults(self.model)) if self.has_defaults else None
        for name in self.fields or (one for one in self.model.model_fields if one not in {*self.but, *OF_SUITES}):
            yield from self._options(self.model, name, key=self.key, prefix="", usual=usual)

    def _options(self, part: type[Part], name: str, *, key: str, prefix: str, usual: Any) -> Iterator[FieldOption]:
        info = part.model_fields[name]
        members = _members(info.annotation)
        default = None if usual is None else getattr(usual, name, None)
        key, option = f"{key}.{name}", prefix + self.names.get(name, name.replace("_", "-"))
        if inner := next((one for one in members if hasattr(one, "model_fields")), None):
            for each in inner.model_fields:
                yield from self._options(inner, each, key=key, prefix=f"{option}-", usual=default)
            return
        needs = name == self.needs
        words = _help(info.description or "", members, None if needs else default)
        yield FieldOption(name=option, keys=(key,), members=members, help=words, is_needed=needs, rule=self.rule)


def usual_part(key: str) -> Part | None:
    """Return the part that a suite has where it says nothing, if it has one."""
    from trtbench.suite import Suite
    from trtbench.suite.base import Part

    section = Suite.model_fields.get(key)
    return section.default if section is not None and isinstance(section.default, Part) else None


def _defaults(part: type[Part]) -> SimpleNamespace:
    return SimpleNamespace(**{name: info.default for name, info in part.model_fields.items() if not info.is_required()})


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a value may have, None and what annotates them left out."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return tuple(member for one in get_args(annotation) for member in _members(one))
    return () if annotation is type(None) else (annotation,)


def _choices(member: Any) -> tuple[Any, ...]:
    """Return the values of a choice, or of a tuple of choices."""
    inner = _members(get_args(member)[0])[0] if get_origin(member) is tuple else member
    return get_args(inner) if get_origin(inner) is Literal else ()


def _help(description: str, members: Sequence[Any], default: Any) -> str:
    choices = ", ".join(str(choice) for one in members for choice in _choices(one))
    words = f"{description[:1].upper()}{description[1:]}" if _SENTENCE.match(description) else description
    usual = ",".join(map(str, default)) if isinstance(default, tuple) else default
    shown = "" if usual is None else {"True": "on", "False": "off"}.get(str(usual), str(usual))
    return f"{words}{f' ({choices})' if choices else ''}.{f'  [default: {shown}]' if shown else ''}"
