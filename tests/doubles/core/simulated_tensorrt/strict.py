"""What makes a class as strict as the bindings: names, keywords, arity and types of one major, and nothing else."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from . import facts

registry: dict[str, type] = {}
kinds: Any = types.SimpleNamespace()
_C = TypeVar("_C", bound=type)
_NULLABLE = {"int8_calibrator", "progress_monitor", "profiler", "error_recorder", "execution_context", "parent_phase"}
_PROTOCOL = {"__enter__", "__exit__", "__init__", "__getitem__", "__len__", "__bool__", "__eq__"}


class Enum:
    """An enumeration of the bindings: members by name, an integer behind each, and no `|`."""

    __members__: ClassVar[dict[str, Any]] = {}
    _numbers: ClassVar[dict[str, int]] = {}

    def __init__(self, value: int) -> None:
        self._value = int(value)

    @property
    def value(self) -> int:
        """The integer, which differs between majors."""
        return self._value

    @property
    def name(self) -> str:
        """The first name of the integer; of one that has none pybind11 makes a member all the same."""
        return next((name for name, number in self._numbers.items() if number == self._value), "???")

    def __int__(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Enum) and other._value == self._value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self._value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def make_enums() -> None:
    """Make every enumeration of the current facts."""
    for name, fact in facts.current().classes.items():
        if "enum" in fact:
            short = name.rpartition(".")[2]
            kind = type(short, (Enum,), {"_numbers": fact["enum"], "__module__": "tensorrt", "__qualname__": name})
            kind.__members__ = {each: kind(number) for each, number in fact["enum"].items()}  # type: ignore[attr-defined]
            for each, member in kind.__members__.items():  # type: ignore[attr-defined]
                setattr(kind, each, member)
            registry[name] = kind
            setattr(kinds, short, kind)


class Managed:
    """A class whose objects stand in `with`, which ends nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Made:
    """A class that only the library makes: its constructor is refused, factories use `_of`."""

    @classmethod
    def _of(cls, *args: Any, **kwargs: Any) -> Self:
        made = object.__new__(cls)
        made._setup(*args, **kwargs)
        return made

    def _setup(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("nothing to set up")


class _Initialised(type):
    """Holds subclasses written in Python to calling the base's `__init__`, as the bindings do."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if not made.__dict__.get("_is_initialised"):
            base = next(each for each in cls.__mro__ if each.__name__ in registry)
            raise TypeError(f"tensorrt.{base.__name__}.__init__() must be called when overriding __init__")
        return made


class Overridable(metaclass=_Initialised):
    """A class that clients derive from."""

    def __init__(self) -> None:
        self.__dict__["_is_initialised"] = True


class Unusable:
    """What the library gives where it cannot start CUDA: the first use of the real one, and its end, are a SIGSEGV."""

    ends: ClassVar[int] = 0

    def __getattribute__(self, name: str) -> Any:
        raise SystemError(f"here the library ends the process by SIGSEGV: {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise SystemError(f"here the library ends the process by SIGSEGV: {name}")

    def __del__(self) -> None:
        Unusable.ends += 1


def make_unusable(made: Any) -> None:
    """Turn an object that is being made into one that nobody may touch."""
    object.__setattr__(made, "__class__", Unusable)


def strict(name: str) -> Callable[[_C], _C]:
    """Cut a class to what the current major has, and check every call against the signature there."""

    def decorate(cls: _C) -> _C:
        fact = facts.current().classes.get(name)
        if fact is None:
            return cls
        _cut(cls, fact)
        for method, signatures in fact["methods"].items():
            if method not in _PROTOCOL or method == "__init__":
                setattr(cls, method, _checked(name, method, _own(cls, method), signatures))
        for attribute, kind in fact["properties"].items():
            setattr(cls, attribute, _property(cls, attribute, kind))
        if "__init__" not in fact["methods"]:
            setattr(cls, "__init__", _refused(name))  # noqa: B010  mypy forbids the assignment
        setattr(cls, "__setattr__", _no_new_names(cls, name))  # noqa: B010  likewise
        cls.__module__, cls.__qualname__ = "tensorrt", name
        registry[name] = cls
        setattr(kinds, name, cls)
        return cls

    return decorate


def deprecated(what: str) -> None:
    """Warn as the bindings do for a member that is on its way out."""
    warnings.warn(f"Use {what} instead.", DeprecationWarning, stacklevel=4)


def accepts(kind: str, value: Any) -> bool:
    """Say whether the bindings take a value for a parameter type."""
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    if kind.startswith(("Sequence[", "list[")):
        inner = kind.partition("[")[2][:-1]
        return (
            isinstance(value, Sequence) and not isinstance(value, str) and all(accepts(inner, each) for each in value)
        )
    return isinstance(value, registry.get(kind) or registry["ILogger.Severity"])


def _is_integer(value: Any) -> bool:
    return not isinstance(value, float | str | np.floating) and (
        hasattr(value, "__index__") or hasattr(value, "__int__")
    )


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _is_shape(value: Any) -> bool:
    return isinstance(value, kinds.Dims) or (
        isinstance(value, list | tuple) and all(_is_integer(each) for each in value)
    )


_PLAIN: dict[str, Callable[[Any], bool]] = {
    "object": lambda _: True,
    "int": _is_integer,
    "float": lambda value: isinstance(value, int | float | np.number) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool | np.bool_),
    "str": lambda value: isinstance(value, str),
    "Buffer": _is_buffer,
    "Dims": _is_shape,
    "tuple": lambda value: isinstance(value, tuple) and _is_shape(value),
    "list": lambda value: isinstance(value, list) and _is_shape(value),
    "CapsuleType": lambda value: value is None or isinstance(value, kinds.ILogger),
}


def _own(cls: type, method: str) -> Any:
    found = getattr(cls, method, None)
    if found is None:
        raise ImportError(f"the double of {cls.__name__} lacks {method}")
    return found


def _cut(cls: type, fact: dict[str, Any]) -> None:
    nested = {each.rpartition(".")[2] for each in facts.current().classes if each.startswith(f"{cls.__name__}.")}
    known = {*fact["methods"], *fact["properties"], *fact.get("attributes", ()), *nested}
    for member in [each for each in vars(cls) if not each.startswith("_") and each not in known]:
        delattr(cls, member)


def _checked(owner: str, method: str, inner: Any, signatures: list[str]) -> Any:
    forms = [facts.signature(each) for each in signatures]
    if getattr(inner, "_is_checked", None) == forms:
        return inner

    @functools.wraps(inner)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(_binds(form, args, kwargs) for form in forms):
            supported = "\n".join(f"    {place}. {method}{each}" for place, each in enumerate(signatures, 1))
            raise TypeError(
                f"{method}(): incompatible function arguments. The following argument types are supported:\n"
                f"{supported}\n\nInvoked with: {args} {kwargs} on tensorrt.{owner}"
            )
        return inner(self, *args, **kwargs)

    call._is_checked = forms  # type: ignore[attr-defined]
    return call


def _binds(form: tuple[facts.Parameter, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if len(args) > len(form):
        return False
    given = dict(zip((each.name for each in form), args, strict=False))
    if any(each in given for each in kwargs):
        return False
    given |= kwargs
    by_name = {each.name: each for each in form}
    if any(each not in by_name or each.startswith("arg") for each in kwargs):
        return False
    missing = [each for each in form if each.name not in given and not each.is_optional]
    return not missing and all(_fits(by_name[name], value) for name, value in given.items())


def _fits(parameter: facts.Parameter, value: Any) -> bool:
    return (value is None and (parameter.is_optional or parameter.name in _NULLABLE)) or accepts(parameter.kind, value)


def _property(cls: type, name: str, kind: str) -> property:
    own = getattr(cls, name, None)
    plain = kind.removesuffix(" (read only)")
    slot = f"_value_of_{name}"

    def read(self: Any) -> Any:
        return own.__get__(self) if isinstance(own, property) else self.__dict__.get(slot, own)

    def write(self: Any, value: Any) -> None:
        if not ((value is None and name in _NULLABLE) or accepts(plain, value)):
            raise TypeError(f"tensorrt.{cls.__name__}.{name} is {plain}, not {type(value).__name__}")
        if isinstance(own, property) and own.fset is not None:
            own.fset(self, value)
        else:
            self.__dict__[slot] = value

    return property(read) if kind.endswith("(read only)") else property(read, write)


def _refused(name: str) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"tensorrt.{name}: No constructor defined!")

    return __init__


def _no_new_names(cls: type, name: str) -> Callable[[Any, str, Any], None]:
    def __setattr__(self: Any, attribute: str, value: Any) -> None:
        is_ours = type(self).__module__ == "tensorrt"
        if is_ours and not attribute.startswith("_") and not isinstance(getattr(type(self), attribute, None), property):
            raise AttributeError(f"'tensorrt.{name}' object has no attribute '{attribute}'")
        object.__setattr__(self, attribute, value)

    return __setattr__
