"""The double of TensorRT for RTX has the real library's API: what our code may call on it, it may call there."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from simulated_tensorrt.facts import read_api

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.rtx

_LIBRARY = re.compile(r"(?:tensorrt_rtx_bindings\.)?tensorrt_rtx\.|nvinfer1::|nvonnxparser::|typing(?:_extensions)?\.")
_SPELLED = {"SupportsInt": "int", "SupportsFloat": "float", "IParserError": "ParserError", "IBuilder ": "Builder "}
_SPELLED |= {"collections.abc.": "", "ILogger.Severity": "Severity"}
_VALUE = re.compile(r"<(\w+\.\w+): [^>]*>")
_SIGNATURE = re.compile(r"(?:\d+\. )?\w+(\(.*\) -> .*)")


def _plain(text: str) -> str:
    """Return a signature or a type of pybind11's as the file of facts spells it."""
    plain = _VALUE.sub(r"\1", _LIBRARY.sub("", text))
    for theirs, ours in _SPELLED.items():
        plain = plain.replace(theirs, ours)
    return re.sub(r"\(self: [\w.]+(?:, )?", "(", plain)


def _signatures(doc: str) -> list[str]:
    found = (_SIGNATURE.fullmatch(line.strip()) for line in doc.splitlines() if "*args" not in line)
    return [_plain(match.group(1)) for match in found if match]


def _kind(cls: type, name: str) -> str:
    """Return the type of a property, marked where it is read only."""
    own: Any = next(base.__dict__[name] for base in cls.__mro__ if name in base.__dict__)
    returned = _plain(f"{own.fget.__doc__.rpartition('-> ')[2].strip()} ").strip()
    return returned if own.fset else f"{returned} (read only)"


def _wrong(name: str, fact: dict[str, Any], cls: Any) -> Iterator[str]:
    if "enum" in fact:
        numbers = {each: int(member) for each, member in cls.__members__.items()}
        if numbers != fact["enum"]:
            yield f"{name}: {numbers}"
        return
    for method, signatures in fact["methods"].items():
        found = _signatures(getattr(cls, method).__doc__ or "")
        if signatures and found != signatures:
            yield f"{name}.{method}: {found}"
    for attribute, kind in fact["properties"].items():
        if kind != _kind(cls, attribute):
            yield f"{name}.{attribute}: {_kind(cls, attribute)}"


def test_every_name_and_signature_of_the_double_is_the_real_librarys() -> None:
    rtx: Any = importlib.import_module("tensorrt_rtx_bindings")
    facts = read_api("tensorrt-rtx-1.7.json")

    assert rtx.__version__ == facts["version"]
    assert all(hasattr(rtx, name) for name in (*facts["functions"], *facts["constants"]))
    wrong: list[str] = []
    for name, fact in facts["classes"].items():
        cls = rtx
        for part in name.split("."):
            cls = getattr(cls, part)
        wrong += _wrong(name, fact, cls)
    assert wrong == []
