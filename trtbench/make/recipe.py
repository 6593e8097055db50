"""Recipes: functions that make one artefact from their arguments alone, and the book that finds or makes them.

The key of an artefact is its recipe, the versions of the packages the recipe names, and the arguments: an artefact by
its sha256, a record by its fields. A recipe's maker gets nothing but these arguments, so that nothing it reads can be
missing from the key. After a change of what a maker writes its recipe's `version` goes up.

    @recipe(kind="equalised", facts=EqualisedFacts, content=("model.onnx",), packages=("onnx",), version=1)
    def equalised(folder: Path, *, graph: Ingredient) -> EqualisedFacts: ...

    made = book.make(equalised, "dense", graph=graph)  # an Artefact[EqualisedFacts]
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from trtbench._optional import version as installed
from trtbench.errors import RowError, StoreError
from trtbench.progress import Event, Listener, nobody
from trtbench.records import Split
from trtbench.store import Artefact
from trtbench.suite import VariantPart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import ClassVar

    from trtbench.store import Store


class Facts:
    """The base of what recipes note beside their files: frozen records, kept as JSON; an unknown key is refused."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFacts(Facts):
    """Of an artefact whose files tell all by themselves."""


class Ingredient(Protocol):
    """An artefact as a maker sees it: its files, which its sha256 stands for, and not the facts noted beside them."""

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of its content files."""
        ...

    def path(self, name: str) -> Path:
        """Return the path of one of its files."""
        ...


P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Given(Generic[T_co]):
    """An argument that cannot be its own key, and the JSON value that stands for it, as the sha256 of a file does."""

    value: T_co
    key: Any


@dataclass(frozen=True, slots=True)
class Aside(Generic[T_co]):
    """An argument that decides nothing of what is made, and is no part of the key: who is told, what people call it."""

    value: T_co


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Generic[P, F]):
    """How an artefact of one kind is made.

    Args:
        maker: fills the folder it is given and returns facts to keep. What an interrupted call left in that folder is
            still there when it is called again.
        kind: the folder of the store it stands in.
        facts: the record that `maker` returns.
        content: the names of the files that are the artefact; others in the folder are kept, but not hashed.
        packages: distributions whose versions decide what is made.
        version: of what the maker does.
    """

    maker: Callable[Concatenate[Path, P], F]
    kind: str
    facts: type[F]
    content: tuple[str, ...]
    packages: tuple[str, ...]
    version: int

    @property
    def name(self) -> str:
        """The maker's name: what tells recipes of one kind apart."""
        return self.maker.__name__

    def inputs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything that decides what is made, by name, as JSON values; the fields of records one by one."""
        found: dict[str, Any] = {package: installed(package) for package in self.packages}
        for name, value in arguments.items():
            key = None if isinstance(value, Aside) else key_of(value)
            if isinstance(key, dict):
                found |= {f"{name}.{part}": one for part, one in key.items()}
            elif not isinstance(value, Aside):
                found[name] = key
        return {"recipe": f"{self.name} {self.version}", **found}

    def circumstances(self, arguments: Mapping[str, Any]) -> frozenset[str]:
        """Return the inputs that say with what and on what it is made: packages, and what arguments name so."""
        of_arguments = (
            f"{name}.{one}" for name, value in arguments.items() for one in getattr(value, "circumstances", ())
        )
        return frozenset((*self.packages, *of_arguments))


def recipe(
    *, kind: str, facts: type[F], content: tuple[str, ...], packages: tuple[str, ...] = (), version: int
) -> Callable[[Callable[Concatenate[Path, P], F]], Recipe[P, F]]:
    """Declare the function below as the maker of a recipe; its arguments but the folder are keyword-only."""

    def declare(maker: Callable[Concatenate[Path, P], F]) -> Recipe[P, F]:
        return Recipe(maker=maker, kind=kind, facts=facts, content=content, packages=packages, version=version)

    return declare


def key_of(value: object) -> Any:
    """Return the JSON value that stands for an argument in a key.

    Raises:
        TypeError: nothing can stand for it; wrap it in Given or Aside.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    for kinds, read in _KEYS:
        if isinstance(value, kinds):
            return read(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        keyed = (field.name for field in dataclasses.fields(value) if field.metadata.get("keyed", True))
        return {name: key_of(getattr(value, name)) for name in keyed}
    raise TypeError(f"{type(value).__name__} cannot key a recipe: wrap it in Given or Aside")


def _not_inside(value: Aside[Any]) -> None:
    raise TypeError(f"{value} stands inside another argument, where it would be keyed")


def _variant_key(value: VariantPart) -> dict[str, Any]:
    """Leave out the name, and what stands among the arguments by itself: the start, the budget; add its packages."""
    packages = {package: installed(package) for package in value.packages}
    return {**value.model_dump(mode="json", exclude={"name", "after", "budget"}), **packages}


_KEYS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    ((Artefact, Split), attrgetter("sha256")),
    (Given, attrgetter("key")),
    (Aside, _not_inside),
    ((tuple, list), lambda value: [key_of(one) for one in value]),
    (Mapping, lambda value: {name: key_of(one) for name, one in value.items()}),
    (VariantPart, _variant_key),
    (BaseModel, lambda value: value.model_dump(mode="json")),
)


class Absent(Exception):  # noqa: N818  it is no error: it says that something is still to be made
    """An artefact is not there yet, and this book makes none."""


class Promise(Artefact[F]):
    """What a dry book gives for an artefact that is still to be made: asked for anything but its kind, it is Absent."""

    __slots__ = ()

    def __init__(self, kind: str) -> None:
        object.__setattr__(self, "kind", kind)

    def __getattr__(self, name: str) -> Any:
        raise Absent(self.kind)


class Book:
    """Finds artefacts, or makes them by their recipes, each once.

    Args:
        store: keeps them.
        label: whose they are, as people say it; an artefact that is made again says what changed since the last one.
        tell: told what is made, reused, or rebuilt and why.
        is_dry: look up only; what is not there becomes a Promise, and `missing` tells its kind and item.
    """

    def __init__(self, store: Store, *, label: str = "", tell: Listener = nobody, is_dry: bool = False) -> None:
        self.store = store
        self.label = label
        self.tell = tell
        self.is_dry = is_dry
        self.missing: list[tuple[str, str]] = []
        self._at_hand: dict[str, Artefact[Any]] = {}
        self._failed: dict[str, RowError] = {}

    def labelled(self, label: str) -> Book:
        """Return this book under another label: what is at hand here is at hand there."""
        other = Book(self.store, label=label, tell=self.tell, is_dry=self.is_dry)
        other.missing, other._at_hand, other._failed = self.missing, self._at_hand, self._failed
        return other

    def make(self, recipe: Recipe[P, F], item: str, /, *args: P.args, **kwargs: P.kwargs) -> Artefact[F]:
        """Find or make an artefact and tell which it was; a stale one is named with what changed.

        Args:
            recipe: how it is made.
            item: what people call it.
            args: none; recipes take keywords.
            kwargs: the arguments of the recipe.

        Raises:
            RowError: it cannot be made. What failed once is not tried again.
            StoreError: the store cannot be written, or holds facts that this version cannot read.
        """
        try:
            inputs = recipe.inputs(kwargs)
        except Absent:
            return self._promise(recipe, item)
        circumstances = recipe.circumstances(kwargs)
        key = self.store.key(recipe.kind, inputs)
        if key in self._failed:
            raise self._failed[key]
        if key in self._at_hand:
            return self._at_hand[key]
        if not self.is_dry:
            self.store.hold(recipe.kind, key)
        found = self.store.find(recipe.kind, inputs, circumstances=circumstances)
        if found is None and self.is_dry:
            return self._promise(recipe, item)
        if found is None:
            label = f"{self.label}/{item}"
            self._tell_start(recipe, item, self.store.changed_inputs(recipe.kind, inputs, label=label))
            try:
                found = self.store.make(
                    recipe.kind,
                    inputs,
                    lambda folder: recipe.maker(folder, *args, **kwargs),
                    content=recipe.content,
                    label=label,
                    circumstances=circumstances,
                )
            except RowError as error:
                self._failed[key] = error
                raise
            self.tell(Event(stage=recipe.kind, item=item, state="done", seconds=found.seconds))
        elif not self.is_dry:
            self.store.use(found.folder)
            self.tell(Event(stage=found.kind, item=item, state="cached", seconds=found.seconds))
        self._at_hand[key] = made = _typed(recipe, found)
        return made

    def sure(self, recipe: Recipe[P, F], item: str, /, *args: P.args, **kwargs: P.kwargs) -> Artefact[F]:
        """Find or make in silence what takes a moment and tells what is ahead, even where this book makes nothing."""
        return Book(self.store, label=self.label).make(recipe, item, *args, **kwargs)

    def find(self, recipe: Recipe[P, F], /, *_args: P.args, **kwargs: P.kwargs) -> Artefact[F] | None:
        """Return the artefact that these arguments make if it is there, telling nobody."""
        inputs = recipe.inputs(kwargs)
        if (at_hand := self._at_hand.get(self.store.key(recipe.kind, inputs))) is not None:
            return at_hand
        found = self.store.find(recipe.kind, inputs, circumstances=recipe.circumstances(kwargs))
        return None if found is None else _typed(recipe, found)

    @property
    def at_hand(self) -> tuple[Artefact[Any], ...]:
        """The artefacts that were found or made."""
        return tuple(self._at_hand.values())

    def _promise(self, recipe: Recipe[P, F], item: str) -> Promise[F]:
        self.missing.append((recipe.kind, item))
        return Promise(recipe.kind)

    def _tell_start(self, recipe: Recipe[P, F], item: str, changed: Sequence[str]) -> None:
        if changed:
            detail = f"made again: {', '.join(changed)} changed"
            self.tell(Event(stage=recipe.kind, item=item, state="note", detail=detail))
        self.tell(Event(stage=recipe.kind, item=item, state="started"))


@functools.cache
def _adapter(recipe: Recipe[P, F]) -> TypeAdapter[F]:
    return TypeAdapter(recipe.facts)


def _typed(recipe: Recipe[P, F], artefact: Artefact[Any]) -> Artefact[F]:
    try:
        facts = _adapter(recipe).validate_json(json.dumps(artefact.facts), strict=True)
    except ValidationError as error:
        raise StoreError(
            f"facts of {artefact.folder}",
            expected=f"those of {recipe.name}, version {recipe.version}",
            got=str(error.errors(include_url=False)[0]["msg"]),
            cure="remove that folder, and run again",
        ) from error
    return dataclasses.replace(artefact, facts=facts)
