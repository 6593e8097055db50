"""What a command line gives of a suite: options made from the fields of its parts, and where one does not apply."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shlex
import types
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo

from trtbench.errors import ConfigError
from trtbench.foreign import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trtbench.suite import Suite
    from trtbench.suite.base import AnyPart, Part

_ONE_FOR_ALL = "seed"  # one option, for every part of a verb that has such a field
_SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of this step, or of a suite: data.seed=1; repeatable."),
]
# What makes a variant one of its suite, and whether it is trained, which --epochs says: no options of a step.
OF_SUITES = ("kind", "name", "after", "fine_tune", "budget")
_PLAIN = (bool, int, float, Path)
_SENTENCE = re.compile(r"[a-z][a-z-]* [^|]")  # not the name of a choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """When an option applies; elsewhere it is refused for being given, whatever its value.

    Args:
        with_: the option that must stand beside it, with its value where that counts, as in `--method nm`.
        without: the option that must not, likewise.
        cure: what to do about it.
    """

    with_: str = ""
    without: str = ""
    cure: str = "leave it out"

    def refuse(self, options: Sequence[str], given: Mapping[str, Any]) -> None:
        """Refuse options that were given where they do not apply.

        Raises:
            ConfigError: they do not.
        """
        if self.with_ and not _holds(self.with_, given):
            raise ConfigError(", ".join(options), expected=f"only with {self.with_}", cure=self.cure)
        if self.without and _holds(self.without, given):
            raise ConfigError(", ".join(options), expected=f"only without {self.without}", cure=self.cure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The keys of a suite that a command line gave, each by its place: `calibration.per_class`."""

    values: Mapping[str, Any]

    def section(self, key: str, usual: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return a part as a suite's file would have it, on top of `usual` and what a suite has that says nothing.

        Raises:
            ConfigError: a key leads into a value that has none.
        """
        default = usual_part(key)
        found: dict[str, Any] = {} if default is None else default.model_dump(exclude_unset=True)
        found |= usual or {}
        for place in sorted(one for one in self.values if one.startswith(f"{key}.")):
            *sections, leaf = place.removeprefix(f"{key}.").split(".")
            part = found
            for section in sections:
                part = part.setdefault(section, {})
                if not isinstance(part, dict):
                    raise ConfigError(place, expected=f"keys under {section}", got=repr(part), cure="leave one out")
            part[leaf] = self.values[place]
        return found

    def part(self, key: str, kind: type[AnyPart], /, **fixed: Any) -> AnyPart:
        """Return a part; what is neither given nor fixed is as in a suite that says nothing.

        Raises:
            ConfigError: a value that cannot be.
        """
        from trtbench.suite import options

        return options(kind, **{**fixed, **self.section(key)})

    def suite(self, **usual: Mapping[str, Any]) -> Suite:
        """Return the suite that a step on one model amounts to; `usual` are sections on which the given keys go.

        Raises:
            ConfigError: a value that cannot be.
        """
        from trtbench.suite import adhoc_suite

        keys = dict.fromkeys((*usual, *(place.partition(".")[0] for place in self.values)))
        return adhoc_suite(origin=self.line, **{key: self.section(key, usual.get(key)) for key in keys})

    @property
    def line(self) -> str:
        """The options that give the same again, as a shell reads them."""
        others = [f"{key}={_as_yaml(value)}" for key, value in self.values.items() if key != "model.name"]
        words = ["--model", str(self.values["model.name"]), *(word for one in others for word in ("--set", one))]
        return shlex.join(words)


def _as_yaml(value: Any) -> str:
    """Return a value as --set reads it: on one line, a text in quotes where it would be read as another thing."""
    if isinstance(value, Path):
        value = str(value)
    with contextlib.suppress(ValueError):
        if isinstance(value, str) and parse_yaml(value) == value:
            return value
    return json.dumps(value)


class Verb:
    """A verb with its own options and those of parts of a suite; Typer reads them when it is asked for, not before.

    Args:
        function: takes what was given of the parts first, then its own options by name.
        sections: the parts; of two fields of one name the first keeps it, the other bears its part's name too.
    """

    def __init__(self, function: Callable[..., None], sections: Sequence[Section]) -> None:
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__annotations__: dict[str, Any] = {}  # the signature has them
        self.sections = sections
        self._function = function

    def __call__(self, *, keys: list[str] | None = None, **values: Any) -> None:
        """Run the verb, once every option that was given is found to apply."""
        options = self.options()
        rules = {name: (f"--{option.name}", option.rule) for name, option in options.items()}
        rules |= {one.name: (_label(one), _rule(one)) for one in self._own()}
        rules["keys"] = ("--set", self._rule_of(keys or []))
        _refuse(rules, {**values, "keys": keys})
        given = {
            key: option.read(values[name])
            for name, option in options.items()
            if values[name] is not None
            for key in option.keys
        }
        own = {name: value for name, value in values.items() if name not in options}
        self._function(Given(values=self._with_keys(given, keys or [])), **own)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's own options, then those of the parts, the first part's last, and --set."""
        options = sorted(self.options().values(), key=self._part, reverse=True)
        generated = [option.parameter() for option in options]
        keys = inspect.Parameter("keys", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_SetOption)
        return inspect.Signature([*self._own(), *generated, *([keys] if self.sections else [])])

    def options(self) -> dict[str, FieldOption]:
        """Return the options of the parts by the names of their parameters."""
        found: dict[str, FieldOption] = {}
        for section in self.sections:
            for option in section.options():
                before = found.get(option.name)
                if before is None:
                    found[option.name] = option
                elif before.keys == option.keys:
                    found[option.name] = replace(before, rule=None)  # it applies to both kinds of part
                elif option.name == _ONE_FOR_ALL:
                    words = "Seed of all that is left to chance here.  [default: 0]"
                    found[option.name] = replace(before, keys=(*before.keys, *option.keys), help=words)
                else:
                    name = f"{section.key.replace('_', '-')}-{option.name}"
                    found[name] = replace(option, name=name)
        return {name.replace("-", "_"): option for name, option in found.items()}

    def _part(self, option: FieldOption) -> int:
        return next(index for index, one in enumerate(self.sections) if option.keys[0].startswith(f"{one.key}."))

    def _own(self) -> Iterator[inspect.Parameter]:
        hints = get_type_hints(self._function, include_extras=True)
        for index, one in enumerate(inspect.signature(self._function).parameters.values()):
            if index > 0:  # the first is what is given of the parts
                yield one.replace(annotation=hints[one.name])

    def _with_keys(self, given: dict[str, Any], keys: list[str]) -> dict[str, Any]:
        """Add KEY=VALUE, the value read as YAML, each key once."""
        for text in keys:
            name, equals, value = text.partition("=")
            if not (name and equals):
                raise ConfigError("--set", expected="KEY=VALUE", got=repr(text), cure="e.g. --set ema=0.999")
            place = self._place(name)
            if place in given:
                raise ConfigError(f"--set {name}", expected="each key once", got="it twice", cure="leave one out")
            try:
                given[place] = parse_yaml(value)
            except ValueError as error:
                cure = "write it as in a suite's file"
                raise ConfigError(
                    f"--set {name}", expected="a value in YAML", got=f"{value!r:.80}: {error}", cure=cure
                ) from error
        return given

    def _rule_of(self, keys: list[str]) -> Only | None:
        """Return when KEY=VALUE applies: as the options of the parts that the keys lead into do, if these agree."""
        into = {self._place(text.partition("=")[0]).partition(".")[0] for text in keys}
        rules = {one.rule for one in self.sections if one.key.partition(".")[0] in into}
        rules = rules or {one.rule for one in self.sections}
        return rules.pop() if len(rules) == 1 else None

    def _place(self, name: str) -> str:
        """Return where in a suite a key stands: that of a part of this verb, else from the top."""
        from trtbench.suite import Suite

        first, dot, _ = name.partition(".")
        if dot and first in Suite.model_fields:
            return name
        part = next((one for one in self.sections if first in one.model.model_fields), self.sections[0])
        return f"{part.key}.{name}"


def takes(*sections: Section) -> Callable[[Callable[..., None]], Verb]:
    """Let a verb take parts of a suite by options; it is handed what was given of them as its first argument."""
    return lambda function: Verb(function, sections)


def _holds(option: str, given: Mapping[str, Any]) -> bool:
    name, _, value = option.partition(" ")
    return name in given and value in {"", given[name]}


def _refuse(rules: Mapping[str, tuple[str, Only | None]], values: Mapping[str, Any]) -> None:
    """Refuse the options that were given where they do not apply, those of one rule together."""
    given = {label: values[name] for name, (label, _) in rules.items() if values[name] is not None}
    for rule in dict.fromkeys(rule for _, rule in rules.values() if rule is not None):
        if under := [label for label, one in rules.values() if one == rule and label in given]:
            rule.refuse(under, given)


def _label(parameter: inspect.Parameter) -> str:
    extras = get_args(parameter.annotation)[1:]
    argument = next((one for one in extras if isinstance(one, ArgumentInfo)), None)
    if argument is not None:
        return argument.metavar or parameter.name.upper()
    return f"--{parameter.name.replace('_', '-')}"


def _rule(parameter: inspect.Parameter) -> Only | None:
    return next((one for one in get_args(parameter.annotation)[1:] if isinstance(one, Only)), None)


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
        metavar = None if kind != list[str] else "TEXT" if self._item is str else "A,B,..."
        return inspect.Parameter(
            self.name.replace("-", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.is_needed else None,
            annotation=Annotated[
                kind if self.is_needed else kind | None,
                typer.Option(flags, help=self.help, metavar=metavar),
            ],
        )

    @property
    def _item(self) -> Any:
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
