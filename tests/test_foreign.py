"""What comes from outside is read within limits, and a foreign graph in a process that has some too."""

from __future__ import annotations

import json
import os
import resource
import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from trtbench.confined import _confine, confined
from trtbench.errors import ConfigError
from trtbench.foreign import MAX_YAML, NAME, file_size, is_inside, parse_json, parse_yaml, path_fault, read_file

if TYPE_CHECKING:
    from pathlib import Path

_PAIRS = (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
_BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 10)}]\n" for p, n in _PAIRS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "key 'a' twice"),
        ("a: &x {b: *x}", "alias of what it stands in"),
        (_BOMB, "10,000 values"),
        ("a: " + "[" * 500, "more than 60 deep"),
        ("a: " + "9" * 5000, "^a whole number of 5000 digits"),
        ("a: 0x" + "f" * 40, "neither text nor number"),
        ("1: a", "the key 1, which is no text"),
        ("a: !!python/object/apply:os.system [true]", "the tag"),
        ("a: !!bool x", "'x', which is no bool"),
        ("a: !!map [1]", "expected a mapping node"),
        ("a: [!!int ~]", "'~', which is no int"),
        ('a: "\\0"', "NUL"),
        ('a: "\\ud800"', "surrogates"),
        ("#" * (MAX_YAML + 1), "characters, above"),
    ],
)
def test_yaml_that_no_suite_needs_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_yaml(text)


def test_yaml_is_read_as_json_values_a_date_as_the_text_it_is() -> None:
    assert parse_yaml("2001-01-01: {a: [1, 0.5, ~, true, x], b: &b {c: 1}, d: {<<: *b, e: 2}}") == {
        "2001-01-01": {"a": [1, 0.5, None, True, "x"], "b": {"c": 1}, "d": {"c": 1, "e": 2}}
    }
    assert parse_yaml("a: 2001-02-31") == yaml.safe_load("a: '2001-02-31'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 20_000, "nested more than 60 deep"),
        ("[" * 70 + "]" * 70, "nested more than 60 deep"),
        ("9" * 30, "30 digits"),
        ("NaN", "JSON does not know"),
        ("1e999", "beyond"),
        ('"\\ud800"', "surrogates"),
        ('{"a\\u0000": 1}', "NUL"),
    ],
)
def test_json_that_no_reader_of_ours_could_hold_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_only_a_regular_file_of_the_size_expected_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(bytes(11))
    (tmp_path / "right").write_bytes(bytes(10))

    for name, words in (
        ("fifo", "no regular file"),
        ("zero", "no regular file"),
        (".", "a folder"),
        ("large", "above"),
    ):
        with pytest.raises(ValueError, match=words):
            file_size(tmp_path / name, most=10)
    assert read_file(tmp_path / "right", most=10) == bytes(10)
    assert read_file(tmp_path / "right") == bytes(10)


def test_a_name_leads_nowhere_and_a_link_out_of_a_folder_is_seen(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")

    assert all(NAME.fullmatch(name) is None for name in ("../x", "a/b", ".hidden", "", "a\n", "a" * 121, "a\0"))
    assert NAME.fullmatch("int8+fp16-rescued#2")
    assert not is_inside(tmp_path / "out" / "passwd", tmp_path)
    assert is_inside(tmp_path / "none" / "deep", tmp_path)


def compute(path: Path, *, how: str) -> Any:
    """What a hostile file would have native code do."""
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "allocate":
        return len(bytearray(64 * 10**9))
    while how == "loop":
        pass
    if how == "raise":
        raise KeyError("a fault of a library")
    if how == "claim":
        raise AssertionError("a fault of ours")
    return {"size": path.stat().st_size}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("crash", "native code crashed (SIGSEGV)"),
        ("allocate", "got one that takes more"),
        ("raise", "KeyError: 'a fault of a library'"),
        pytest.param("loop", "still computed after 10 s", marks=pytest.mark.slow),
    ],
)
def test_a_hostile_file_ends_its_own_process_in_one_sentence(how: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(bytes(5))

    with pytest.raises(ConfigError) as caught:
        confined("tests.test_foreign:compute", tmp_path / "x.onnx", how=how)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fault_of_ours_is_none_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)in compute\n.*a fault of ours"):
        confined("tests.test_foreign:compute", tmp_path / "x.onnx", how="claim")


def test_what_a_confined_call_returns_comes_back(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(bytes(5))

    assert confined("tests.test_foreign:compute", tmp_path / "x.onnx", how="") == {"size": 5}
    assert json.dumps(parse_json('{"a": [1, 2.5, null]}')) == '{"a": [1, 2.5, null]}'


def test_where_nobody_tells_what_memory_is_taken_time_alone_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited: list[int] = []
    monkeypatch.setattr("trtbench.confined._STATM", tmp_path / "statm")  # as on macOS
    monkeypatch.setattr(resource, "setrlimit", lambda kind, _: limited.append(kind))

    _confine(10**9, 10)

    assert limited == [resource.RLIMIT_CPU]


def test_a_path_that_can_be_none_is_told_as_an_arguments_fault(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / ("a" * 300), tmp_path / "loop" / "file"):
        with pytest.raises(OSError, match=r"too long|[Ss]ymbolic") as refused:
            path.stat()
        fault = path_fault(refused.value)
        assert fault is not None
        assert fault.cure == "give another one"
    assert path_fault(FileNotFoundError()) is None
