"""The one reader of what comes from outside: how large, how deep and of what kind it may be, before it is used.

What is refused raises ValueError, what the operating system refuses OSError; who reads says what it was, and the cure.
"""

from __future__ import annotations

import errno
import json
import lzma
import math
import os
import pickle
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import yaml

from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

    from pydantic import ValidationError

MAX_JSON = 512 * 10**6  # bytes: a row's raw samples are the largest, a million of which take 10 MB
MAX_YAML = 100_000  # bytes: the longest suite of ours has 3,000, and PyYAML reads 100,000 in a second
_MAX_NODES = 10_000  # of YAML once its aliases are expanded
_MAX_DEPTH = 60  # levels: the report's schema has 12
_MAX_DIGITS = 18  # of a whole number: what 64 bits hold
_LONGEST_WHOLE = 100  # characters of one in YAML, which writes it in binary too, and with underscores
# What a reader of values raises on those it did not expect, and what decoders, parsers and unpicklers of others raise
# on damaged bytes. They are closed lists, so that our own faults show.
MISFITS = (OSError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError)
FAULTS = (
    *(OSError, ValueError, LookupError, ArithmeticError, EOFError, RuntimeError, struct.error, pickle.UnpicklingError),
    *(zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+#-]{0,119}")  # that may become a part of a path: no folder, no hidden file


def file_size(path: Path, *, most: int) -> int:
    """Return the bytes of a regular file, before one of them is read; opening a FIFO would wait for its writer.

    Raises:
        ValueError: it is another kind of file, or larger.
        OSError: there is none.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("a folder" if stat.S_ISDIR(found.st_mode) else "a device, a pipe or a socket, no regular file")
    if found.st_size > most:
        raise ValueError(f"{found.st_size / 1e6:,.1f} MB, above {most / 1e6:,.1f} MB")
    return found.st_size


def read_file(path: Path, *, most: int = MAX_JSON) -> bytes:
    """Read a regular file of at most so many bytes.

    Raises:
        ValueError: it is another kind of file, or larger.
        OSError: it cannot be read.
    """
    file_size(path, most=most)
    with path.open("rb") as file:
        if len(data := file.read(most + 1)) > most:  # it grows, or says of itself that it is empty
            raise ValueError(f"more than {most / 1e6:,.1f} MB")
    return data


def read_json(path: Path) -> Any:
    """Read a file of JSON as `parse_json` does.

    Raises:
        ValueError: it is another kind of file, too large, or no JSON of ours.
        OSError: it cannot be read.
    """
    return parse_json(read_file(path))


def parse_json(text: str | bytes) -> Any:
    """Read JSON whose values every reader of ours can hold: numbers of 64 bits, texts that UTF-8 can write.

    Raises:
        ValueError: it is none, or nested deeper than anything of ours.
    """
    try:
        found = json.loads(text, parse_constant=_no_number, parse_int=_whole, parse_float=_real)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check(found)
    return found


class YamlError(ValueError):
    """What is wrong with YAML, and where it stands if that is known."""

    def __init__(self, problem: str, *, mark: yaml.Mark | None = None) -> None:
        super().__init__(problem)
        self.mark = mark


def parse_yaml(text: str, *, most: int = MAX_YAML) -> Any:
    """Read YAML as the values of JSON; a date is a text.

    Raises:
        YamlError: it is none, holds a key twice or one that is no text, is too long, too deep, or expands to too much.
    """
    if len(text) > most:
        raise YamlError(f"{len(text):,} characters, above {most:,}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        found = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise YamlError(str(error.problem or error.context), mark=error.problem_mark) from error
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())[:200]) from error
    try:
        _check(found)
    except ValueError as error:
        raise YamlError(str(error)) from error
    return found


def compose_yaml(text: str) -> yaml.Node | None:
    """Return the nodes of YAML that `parse_yaml` has read, to see where a value stands."""
    return _Loader(text).get_single_node()


_TAGS = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq"))}
_TOO_DEEP = f"values nested more than {_MAX_DEPTH} deep"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without dates, keys that stand twice, and aliases that expand to more than they may."""

    yaml_implicit_resolvers = {  # noqa: RUF012  as in the class above
        first: [one for one in those if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, those in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        """Compose a node, and count it as often as it is meant."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # as its stubs have it
        mark: Any = event.start_mark
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark)
        if getattr(event, "tag", None) not in _TAGS:
            raise yaml.MarkedYAMLError(problem=f"the tag {event.tag}", problem_mark=mark)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent):
            self._sizes[id(node)] = 1 + sum(self._sizes[id(one)] for one in _children(node))
        elif id(node) not in self._sizes:
            raise yaml.MarkedYAMLError(problem="an alias of what it stands in", problem_mark=mark)
        if self._sizes[id(node)] > _MAX_NODES:
            problem = f"more than {_MAX_NODES:,} values, its aliases expanded"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  as there
        """Construct a value, or say that a scalar is not of its type."""
        mark: Any = node.start_mark
        kind = node.tag.rpartition(":")[2]
        if kind == "int" and len(node.value) > _LONGEST_WHOLE:
            raise yaml.MarkedYAMLError(problem=f"a whole number of {len(node.value)} digits", problem_mark=mark)
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError) as error:
            problem = f"{str(node.value)[:40]!r}, which is no {kind}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  as there
        """Construct a mapping whose keys stand once each."""
        seen: set[str] = set()
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()  # the class above tells what it is else
        for key in (one for one, _ in pairs if isinstance(one, yaml.ScalarNode)):
            if key.value in seen:
                mark: Any = key.start_mark
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r:.60} twice", problem_mark=mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _children(node: yaml.Node | None) -> Iterator[yaml.Node]:
    for one in node.value if isinstance(node, yaml.CollectionNode) else ():
        yield from one if isinstance(one, tuple) else (one,)


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(f"{text[:20]}, beyond what a number of 64 bits holds")
    return found


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant}, which JSON does not know")


def _check(document: Any) -> None:
    """Refuse, level by level, what JSON has not, and what no text or number of ours may be."""
    level = [document]
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                if odd := [key for key in node if not isinstance(key, str)]:
                    raise ValueError(f"the key {odd[0]!r:.60}, which is no text")
                below += (*node, *node.values())
            elif isinstance(node, list):
                below += node
            else:
                _check_scalar(node)
        if not below:
            return
        level = below
    raise ValueError(_TOO_DEEP)


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # a lone surrogate has no UTF-8: UnicodeEncodeError is a ValueError
        if "\0" in value:
            raise ValueError("a text with a NUL in it")
    elif not (value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**_MAX_DIGITS)):
        raise ValueError(f"{str(value)[:40]}, which is neither text nor number of 64 bits")


def reason(error: Exception) -> str:
    """Return in words why something could not be read, for whoever says what it was."""
    if isinstance(error, UnicodeError):
        return "bytes that are not UTF-8 text"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def path_fault(error: Exception) -> ConfigError | None:
    """Return what to say of a path that the system takes for none, whoever asked for it; None of other errors."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENAMETOOLONG, errno.ELOOP}:
        return None
    return ConfigError(f"path {str(error.filename)[:80]!r}", got=reason(error), cure="give another one")


def first_fault(error: ValidationError) -> str:
    """Return in words what a document breaks first, and where; what stands there may be of any length."""
    fault = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the whole file'}: {fault['msg']}"


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, stays below a folder."""
    real = os.path.realpath(folder)  # a link to itself stays, where `Path.resolve` raises
    return os.path.commonpath((os.path.realpath(path), real)) == real
