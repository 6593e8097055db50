"""What may be handed to trtbench: valid files of every kind, changed in bytes or in values, and the command line."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import strategies as st

from tests.fuzz.valid import resealed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_MOST = 12  # changed places of a file
_HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, -1.5, 1e-320, 1e308),
    *(float("inf"), float("nan"), "", " ", "\x00", "\x1b[31m", "nan", "1e999", "a" * 300, "../../../x", "/dev/zero"),
    *("/etc/passwd", "a/b", "C:\\x", "<script>", "| a |", "=1+1", "os:system", "${HOME}", "${NO_SUCH}", "2001-01-01"),
    *("\ud800", "é" * 100, "1" * 5000, "onnx:/dev/zero", "folder:/", "folder:.", "cifar10:/", "evil:build"),
    *([], {}, [[]], {"": ""}, [None], {"a": 1}, [1, 2, 3], ["a"], [0] * 2000, {"kind": "dense"}),
)
_DEEP = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A command line, the files it finds, those of the valid ones it finds too, and places that are no plain files."""

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    valid: tuple[str, ...] = ()
    odd: Mapping[str, str] = field(default_factory=dict)

    def lay_out(self, folder: Path, valid: Path) -> None:
        """Put everything into the folder."""
        for name in self.valid:
            if (valid / name).is_dir():
                shutil.copytree(valid / name, folder / name)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(valid / name, folder / name)
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        for name, kind in self.odd.items():
            _place(folder / name, kind)


_ODD = ("fifo", "zero", "folder", "loop", "dangling", "unreadable", "outside")


def _place(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    targets = {"zero": "/dev/zero", "loop": path.name, "dangling": "nowhere", "outside": "/etc"}
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "unreadable":
        path.write_bytes(b"x")
        path.chmod(0)
    else:
        path.symlink_to(targets[kind])


def _values() -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(_HOSTILE), st.integers(), st.floats(), st.text(max_size=20))


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Flip, cut, double, insert or overwrite pieces of a file."""
    chance = random.Random(draw(st.integers(0, 2**48)))
    found = bytearray(data)
    for _ in range(1 + int(chance.random() ** 3 * _MOST)):
        at = chance.randrange(len(found) + 1)
        length = chance.choice((1, 2, 4, 8, chance.randrange(1, 64)))
        piece = bytes(found[chance.randrange(len(found) + 1) :][:length])
        change = chance.randrange(8)
        if change == 0:
            del found[at:]
        elif change == 1:
            del found[at : at + length]
        elif change == 2:
            found[at:at] = piece
        elif change == 3:
            found[at : at + len(piece)] = piece
        elif change == 4:
            found[at : at + length] = chance.choice((b"\xff", b"\x00", b"\x7f", b"\x80")) * length
        elif found:
            found[min(at, len(found) - 1)] ^= 1 << chance.randrange(8)
    return bytes(found)


@st.composite
def changed_values(draw: st.DrawFn, document: Any) -> Any:
    """Replace, remove or add values somewhere inside a document of JSON values."""
    found = json.loads(json.dumps(document))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 5)))):
        chance = random.Random(draw(st.integers(0, 2**48)))
        found = _changed(found, chance, copy.deepcopy(draw(_values())))
    return found


def _changed(document: Any, chance: random.Random, value: Any) -> Any:
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return value
    holder, key = chance.choice(places)
    change = chance.randrange(8)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[value if isinstance(value, str) else str(value)[:50]] = holder.pop(key)
    elif change == 2 and isinstance(holder, list):
        holder.append(value)
    elif change == 3:
        other, theirs = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[theirs]))
    else:
        holder[key] = value
    return document


def _collect(node: Any, places: list[tuple[Any, Any]]) -> None:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        places.append((node, key))
        if isinstance(value, (dict, list)):
            _collect(value, places)


def _written(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


@st.composite
def changed_json(draw: st.DrawFn, text: bytes) -> bytes:
    """Change a JSON file: its values mostly, its bytes, or its depth."""
    how = draw(st.integers(0, 9))
    if how == 0:
        opening, closing = draw(st.sampled_from((("[", "]"), ('{"a":', "}"))))
        return (opening * _DEEP + "1" + closing * _DEEP).encode()
    if how == 1:
        return draw(changed_bytes(text))
    if how == 2:
        deep = ("[" * _DEEP + "]" * _DEEP).encode()
        found = _written(draw(changed_values(json.loads(text))))
        return found.replace(b"null", deep, 1)
    return _written(draw(changed_values(json.loads(text))))


@st.composite
def _any_file(draw: st.DrawFn, name: str, data: bytes, change: Callable[[bytes], st.SearchStrategy[bytes]]) -> Any:
    """A changed file, or in one of 30 cases a place that is none; as the arguments of a Case."""
    if draw(st.integers(0, 29)) == 0:
        return {"odd": {name: draw(st.sampled_from(_ODD))}}
    return {"files": {name: draw(change(data))}}


class Cases:
    """The strategies of every kind, over the valid files in a folder."""

    def __init__(self, valid: Path) -> None:
        self._valid = valid

    def kinds(self) -> dict[str, st.SearchStrategy[Case]]:
        """Return the strategy of each kind."""
        return {
            "suites": self.suites(),
            "checkpoints": self.checkpoints(),
            "packed": self.packed(),
            "onnx": self.onnx(),
            "images": self.images(),
            "archives": self.archives(),
            "reports": self.reports(),
            "sidecars": self.sidecars(),
            "manifests": self.manifests(),
            "bundles": self.bundles(),
            "store": self.store(),
            "command lines": self.command_lines(),
        }

    def controls(self) -> dict[str, tuple[Case, ...]]:
        """Return command lines of each kind on the valid files as they are: each has to exit 0."""
        pictures, packed = self._names("one.*"), (*self._names("*.zip"), *self._names("*.tar*"))
        lines = {
            "suites": (("plan", "suite.yaml"),),
            "checkpoints": (("evaluate", *_LOADED, "r10.safetensors"), ("pack", "net.pth", "-o", "out.tbz")),
            "packed": (("unpack", "net.tbz", "-o", "out.safetensors"),),
            "onnx": (("inspect", "net.onnx"), ("build", *_ONE, "--precision", "fp32")),
            "images": tuple(("predict", place, name) for name in pictures for place in ("bundle", "engine.json")),
            "archives": tuple((*_ARCHIVE, f"folder:{name}") for name in packed),
            "reports": tuple(line for line in _OF_REPORTS if line[0] != "ship"),
            "sidecars": (("inspect", "engine.json"), ("predict", "engine.json", "one.png")),
            "manifests": (_CALIBRATE,),
            "bundles": (("predict", "bundle", "one.png"),),
            "store": (("store", "list"), ("store", "prune", "--older-than-days", "0")),
            "command lines": tuple((*verb.split(), *words) for verb, words in _LINES.items() if verb != "ship"),
        }
        everything = tuple(path.name for path in self._valid.iterdir())
        return {
            kind: tuple(
                Case(argv=tuple(word.replace("FILE", _FILES.get(kind, "")) for word in argv), valid=everything)
                for argv in argvs
            )
            for kind, argvs in lines.items()
        }

    def _names(self, pattern: str) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._valid.glob(pattern)))

    def _read(self, name: str) -> bytes:
        return (self._valid / name).read_bytes()

    @st.composite
    @staticmethod
    def _suite_text(draw: st.DrawFn, text: bytes, whole: bytes) -> bytes:
        how = draw(st.integers(0, 9))
        if how == 0:
            return b"name: " + b"[" * _DEEP
        if how == 1:
            levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12))
            return levels.encode() + text
        if how <= 3:
            return draw(changed_bytes(text))
        document = draw(changed_values(json.loads(whole) if how <= 6 else yaml.safe_load(text)))
        if how == 9:
            return yaml.safe_dump(document, allow_unicode=False).encode("utf-8", "surrogatepass")
        return _written(document)

    def suites(self) -> st.SearchStrategy[Case]:
        """Suites, planned."""
        texts = self._suite_text(self._read("suite.yaml"), self._read("suite.json"))
        return _any_file("suite.yaml", b"", lambda _: texts).map(
            lambda given: Case(argv=("plan", "suite.yaml"), valid=("net.onnx",), **given)
        )

    @st.composite
    @staticmethod
    def _of_files(
        draw: st.DrawFn,
        files: Mapping[str, bytes],
        argvs: tuple[tuple[str, ...], ...],
        change: Callable[[bytes], st.SearchStrategy[bytes]],
        valid: tuple[str, ...] = (),
    ) -> Case:
        """One of these files, changed, and one of these command lines; FILE in it stands for its name."""
        name = draw(st.sampled_from(sorted(files)))
        given = draw(_any_file(name, files[name], change))
        argv = tuple(word.replace("FILE", name) for word in draw(st.sampled_from(argvs)))
        return Case(argv=argv, valid=valid, **given)

    def checkpoints(self) -> st.SearchStrategy[Case]:
        """Torch pickles and safetensors, packed, or loaded into a network."""
        files = {name: self._read(name) for name in ("net.pth", "net.safetensors", "r10.safetensors")}
        loaded = ("evaluate", *_LOADED, "FILE")
        argvs = (("pack", "FILE", "-o", "out.tbz"), ("pack", "FILE", "-o", "out.tbz", "--clusters", "4"), loaded)
        return self._of_files(files, argvs, changed_bytes)

    def packed(self) -> st.SearchStrategy[Case]:
        """Packed files, most of them signed again behind their change."""
        argvs = (("unpack", "FILE", "-o", "out.safetensors"), ("pack", "FILE", "-o", "out.tbz", "--half"))
        return self._of_files({"net.tbz": self._read("net.tbz")}, argvs, _repacked)

    def onnx(self) -> st.SearchStrategy[Case]:
        """Graphs, described, and brought into our form."""
        built = ("build", "--model", "onnx:FILE", "--data", "digits", "--size", "8", "--precision", "fp32")
        return self._of_files({"net.onnx": self._read("net.onnx")}, (("inspect", "FILE"), built, built), changed_bytes)

    def images(self) -> st.SearchStrategy[Case]:
        """Pictures, predicted."""
        files = {name: self._read(name) for name in self._names("one.*")}
        argvs = (("predict", "bundle", "FILE"), ("predict", "engine.json", "FILE", "--top", "3"))
        return self._of_files(files, argvs, changed_bytes, ("bundle", "engine.json", "engine.json.json"))

    def archives(self) -> st.SearchStrategy[Case]:
        """Archives of images, unpacked and read."""
        files = {name: self._read(name) for name in (*self._names("*.zip"), *self._names("*.tar*"))}
        return self._of_files(files, ((*_ARCHIVE, "folder:FILE"),), changed_bytes, ("r2.safetensors",))

    def reports(self) -> st.SearchStrategy[Case]:
        """Reports, rendered, compared, merged and decided again."""
        files = {"report.json": self._read("report.json")}
        return self._of_files(files, _OF_REPORTS, changed_json, ("other/report.json",))

    def sidecars(self) -> st.SearchStrategy[Case]:
        """Sidecars of an engine file, and the engine file itself."""
        files = {"engine.json.json": self._read("engine.json.json"), "engine.json": self._read("engine.json")}
        argvs = (
            ("inspect", "engine.json"),
            ("predict", "engine.json", "one.png"),
            ("crosscheck", "engine.json"),
            ("compare", "report.json", "report.json", "--engines", "."),
        )
        return self._of_files(files, argvs, changed_json, ("one.png", "report.json")).map(self._with_engine)

    def _with_engine(self, case: Case) -> Case:
        there = {*case.files, *case.odd}
        valid = (*case.valid, *(name for name in ("engine.json", "engine.json.json") if name not in there))
        return Case(argv=case.argv, files=case.files, odd=case.odd, valid=valid)

    def manifests(self) -> st.SearchStrategy[Case]:
        """Calibration manifests, signed again or not."""
        files = {"manifest.json": self._read("manifest.json")}
        return self._of_files(files, (_CALIBRATE,), _signed_again, ("net.onnx",))

    def bundles(self) -> st.SearchStrategy[Case]:
        """What a bundle says of itself, signed again or not, and its other files."""
        files = {f"bundle/{name}": self._read(f"bundle/{name}") for name in ("bundle.json", "engine.json.json")}
        argvs = (("predict", "bundle", "one.png"), ("compare", "bundle", "report.json"))
        return self._of_files(files, argvs, _signed_again, ("bundle", "one.png", "report.json"))

    def store(self) -> st.SearchStrategy[Case]:
        """The listings, artefacts and journal of a store, listed, pruned and built from."""
        places = [path for path in sorted((self._valid / "runs").rglob("*")) if path.is_file()]
        files = {path.relative_to(self._valid).as_posix(): path.read_bytes() for path in places}
        argvs = (
            *(("store", "list"), ("store", "list", "--json"), ("store", "prune", "--older-than-days", "0")),
            ("plan", "suite.yaml"),
        )
        whole = ("runs", "net.onnx", "suite.yaml")
        return self._of_files(files, argvs, _json_or_bytes, whole)

    @st.composite
    @staticmethod
    def _line(draw: st.DrawFn, options: Mapping[str, tuple[str, ...]]) -> Case:
        verb = draw(st.sampled_from(sorted(_LINES)))
        words = [*verb.split(), *_LINES[verb]]
        for _ in range(draw(st.integers(1, 3))):
            value = draw(_values())
            text = value if isinstance(value, str) else json.dumps(value)[:5000]
            if draw(st.integers(0, 5)) == 0:
                words += ["--set", f"{draw(st.sampled_from(_KEYS))}={text}"]
            elif draw(st.integers(0, 5)) == 0:
                words[draw(st.integers(0, len(words) - 1))] = text
            else:
                words += [draw(st.sampled_from(options[verb])), text]
        cut = [word.replace("\x00", "").encode("utf-8", "ignore").decode()[:100_000] for word in words]
        return Case(argv=tuple(cut), valid=_LAID)

    def command_lines(self) -> st.SearchStrategy[Case]:
        """Any option of the verbs, with any value."""
        return self._line(_options())


_ONE = ("--model", "onnx:net.onnx", "--data", "digits", "--size", "8")
_LOADED = ("--model", "resnet20", "--data", "digits", "--size", "8", "--checkpoint")
_ARCHIVE = ("evaluate", "--model", "resnet20", "--size", "8", "--checkpoint", "r2.safetensors", "--data")
_CALIBRATE = ("calibrate", *_ONE, "-o", "out", "--method", "minmax", "--manifest", "FILE")
_OF_REPORTS = (
    *(("report", "FILE"), ("recommend", "FILE"), ("recommend", "FILE", "--objective", "engine_bytes")),
    *(("merge", "FILE", "other/report.json"), ("compare", "FILE", "other/report.json"), ("ship", "FILE")),
)
_FILES = {"reports": "report.json", "manifests": "manifest.json"}
_LINES: dict[str, tuple[str, ...]] = {
    "plan": ("suite.yaml",),
    "init": ("--model", "resnet20", "--data", "digits", "-o", "new.yaml"),
    "pack": ("net.safetensors", "-o", "out.tbz"),
    "unpack": ("net.tbz", "-o", "out.safetensors"),
    "report": ("report.json",),
    "recommend": ("report.json",),
    "compare": ("report.json", "report.json"),
    "merge": ("report.json", "report.json"),
    "predict": ("bundle", "one.png"),
    "inspect": ("engine.json",),
    "store list": (),
    "store prune": (),
    "export": (*_LOADED, "r10.safetensors", "-o", "out.onnx", "--exporter", "torchscript"),
    "calibrate": (*_ONE, "-o", "out", "--method", "minmax"),
    "build": (*_ONE, "--backend", "fake", "--precision", "fp32"),
    "bench": ("--engine", "engine.json", "--data", "digits", "--duration", "0.01"),
    "ship": ("report.json",),
}
_KEYS = (
    "data.seed",
    "data.size",
    "export.opset",
    "calibration.per_class",
    "model.name",
    "seed",
    "x",
    "",
    "bench.threads",
)
_LAID = (
    *("suite.yaml", "net.onnx", "net.safetensors", "net.tbz", "report.json", "bundle", "one.png"),
    *("engine.json", "engine.json.json", "runs"),
)


def _options() -> dict[str, tuple[str, ...]]:
    """Return the options of each verb that takes part."""
    import typer

    from trtbench.cli.main import verbs

    found = {}
    for verb in _LINES:
        name, *rest = verb.split()
        command: Any = typer.main.get_command(verbs()[name])
        for word in rest:
            command = command.commands[word]
        found[verb] = tuple(one for each in command.params for one in each.opts if one.startswith("-"))
    return found


@st.composite
def _repacked(draw: st.DrawFn, data: bytes) -> bytes:
    import hashlib
    import struct
    import zlib

    head = len(b"trtbench\x01\r\n")
    if draw(st.integers(0, 3)) == 0:
        return draw(changed_bytes(data))
    body = data[head + 32 :]
    (length,) = struct.unpack("<I", body[:4])
    header, blocks = zlib.decompress(body[4 : 4 + length]), body[4 + length :]
    if draw(st.integers(0, 2)):
        header = draw(changed_json(header))
    else:
        blocks = draw(changed_bytes(blocks))
    packed = zlib.compress(header)
    body = struct.pack("<I", len(packed)) + packed + blocks
    return data[:head] + hashlib.sha256(body).digest() + body


@st.composite
def _signed_again(draw: st.DrawFn, data: bytes) -> bytes:
    found: bytes = draw(changed_json(data))
    try:
        document = json.loads(found)
    except (ValueError, RecursionError):
        return found
    if isinstance(document, dict) and "sha256" in document and draw(st.integers(0, 3)):
        with contextlib.suppress(ValueError, RecursionError, OverflowError):
            found = resealed(document).encode("utf-8", "surrogatepass")
    return found


def _json_or_bytes(data: bytes) -> st.SearchStrategy[bytes]:
    try:
        json.loads(data)
    except ValueError:
        return changed_bytes(data)
    return changed_json(data)
