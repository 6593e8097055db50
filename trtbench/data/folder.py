"""A folder of images, PATH/train/CLASS/* and PATH/test/CLASS/*, plain or packed: what is listed, and what is refused.

An archive is unpacked once into the cache, and nothing in it is trusted.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.data.decode import data_cache, decode
from trtbench.disk import locked, storing
from trtbench.errors import DataError, listed
from trtbench.foreign import FAULTS, MISFITS, file_size, parse_json, read_file, reason
from trtbench.records import Split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.records import Framing

_LAYOUT = "PATH/train/CLASS/* and PATH/test/CLASS/*"
_VALIDATION = ("val", "valid", "validation")
FEWEST_IMAGES = 4  # half of them to compare on, and one of the others to validate on
_FEWEST_CLASSES = 2  # a classifier tells at least two things apart
_NO_IMAGES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what desktops leave behind; hidden files go too
# What torchvision's ImageFolder takes for an image; it passes over everything else.
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_NAMED = 5  # that a note names


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder's images, uint8 (N, 3, height, width), and what there is to say of them; `validation` if it has one."""

    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The folder of one split: the images of each class folder that has some, and files that are no images by name."""

    path: Path
    images: Mapping[str, list[Path]]
    strays: tuple[Path, ...]

    def labelled(self, places: Mapping[str, int]) -> list[tuple[Path, int]]:
        names = sorted(self.images, key=places.__getitem__)
        return [(path, places[name]) for name in names for path in self.images[name]]


def load_folder(root: Path, *, framing: Framing, class_map: Path | None = None) -> Folder:
    """Read the images of a folder, class by class, by name within a class.

    Without a test/ folder val/ is what is scored; with both, val/ is the validation split. Classes are the folders of
    train/, by name, or by number where all are numbers; a class map names all of them, in the order of the logits.

    Raises:
        DataError: a folder is missing or empty, its classes are others than those of train/ or of the map, or files
            are no images.
    """
    parts = {role: _part(root / name) for role, name in _roles(root).items()}
    classes, places = _classes(root, parts, class_map)
    listed = {role: part.labelled(places) for role, part in parts.items()}
    paths = [path for own in listed.values() for path, _ in own]
    images, rotated = decode(paths, root=root, framing=framing)
    splits, start = {}, 0
    for role, own in listed.items():
        labels = np.array([label for _, label in own], np.int64)
        splits[role] = Split(images=images[start : start + len(own)], labels=labels)
        start += len(own)
    return Folder(
        classes=classes,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        notes=(*_notes(parts, classes, class_map), *_rotation_note(rotated, len(paths), framing)),
    )


def load_images(root: Path, *, framing: Framing) -> tuple[NDArray[np.uint8], list[Path], tuple[str, ...]]:
    """Return the images of a folder, at any depth, by path: uint8 (N, 3, height, width); the paths, and what to say.

    Raises:
        DataError: there are fewer than four, or files are no images.
    """
    found = _files(root)
    files = [file for file in found if file.suffix.lower() in IMAGES]
    if len(files) < FEWEST_IMAGES:
        raise DataError(
            f"data.source images:{root}",
            expected=f"a folder of at least {FEWEST_IMAGES} images: to calibrate on, and to compare on",
            got=f"{len(files)} of them" if root.is_dir() else "no folder",
            cure="mend the path, or put images there",
        )
    images, rotated = decode(files, root=root, framing=framing)
    strays = [str(file.relative_to(root)) for file in found if file.suffix.lower() not in IMAGES]
    return images, files, (*_stray_note(strays), *_rotation_note(rotated, len(files), framing))


def training_files(source: str) -> list[Path]:
    """Return the images of a folder, as `data.source` names it, that are for training; all of those without labels.

    Raises:
        DataError: there is no such folder, or a damaged archive.
    """
    name, _, place = source.partition(":")
    root = Path(place).expanduser()
    if name == "folder":
        root = unpacked(root) if is_archive(root) else root
        return [file for files in _part(root / "train").images.values() for file in files]
    return [file for file in _files(root) if file.suffix.lower() in IMAGES]


def _roles(root: Path) -> dict[str, str]:
    held = next((name for name in _VALIDATION if (root / name).is_dir()), None)
    if held is not None and not (root / "test").is_dir():
        return {"train": "train", "test": held}
    return {"train": "train", **({} if held is None else {"validation": held}), "test": "test"}


def _part(path: Path) -> _Part:
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise DataError(
            f"data.source folder:{path.parent}",
            expected=_LAYOUT,
            got=f"{path}: {error.strerror}",
            cure="mend the path, or move a share of each class there",
        ) from error
    folders = [entry for entry in entries if entry.is_dir() and not _is_ignored(entry.name)]
    files = {folder: _files(folder) for folder in folders}
    strays = tuple(file for own in files.values() for file in own if file.suffix.lower() not in IMAGES)
    images = {folder.name: [file for file in own if file.suffix.lower() in IMAGES] for folder, own in files.items()}
    return _Part(path=path, images=images, strays=strays)


def _files(folder: Path) -> list[Path]:
    """Return the files at any depth below a class folder, sorted."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not _is_ignored(name)]
        found += [] if real in seen else [Path(place, name) for name in names if not _is_ignored(name)]
        seen.add(real)  # a link may lead back
    return sorted(found)


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _NO_IMAGES


def _classes(
    root: Path, parts: Mapping[str, _Part], class_map: Path | None
) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Return the classes in the order of the logits, and the place of each class folder."""
    train = parts["train"].images
    if len(train) < _FEWEST_CLASSES:
        raise DataError(
            f"class folders of {root / 'train'}",
            expected=f"at least {_FEWEST_CLASSES}, as in {_LAYOUT}",
            got=str(len(train)),
            cure="put the images of each class in a folder of its own",
        )
    if empty := next((name for name, images in train.items() if not images), None):
        raise DataError(
            f"class folder {root / 'train' / empty}",
            expected="images",
            got="none",
            cure="add images, or remove the class from train and test",
        )
    names = tuple(sorted(train, key=int if _are_numbers(train) else str))
    classes, places = (names, {name: index for index, name in enumerate(names)})
    said, cure = "train", "rename or remove them, or name all classes of the network with data.classes: FILE"
    if class_map is not None:
        classes, places = read_classes(class_map)
        said, cure = class_map.name, "rename them, or add them to data.classes"
    if strange := sorted({name for part in parts.values() for name in part.images if name not in places}):
        got = f"{', '.join(map(repr, strange[:10]))} beside them"
        raise DataError(f"classes of {root}", expected=f"the class folders of {said}", got=got, cure=cure)
    return classes, places


def _are_numbers(names: Iterable[str]) -> bool:
    return all(name.isascii() and name.isdigit() for name in names)


def read_classes(path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of all classes, in the order of the logits, and the place of what a folder may be called.

    A file of JSON is a list, {name: index}, {index: name} or {index: [folder, name]}; any other has a name a line. A
    folder may be called by the whole entry or by its first word, as `n01440764 tench`.

    Raises:
        DataError: it cannot be read, or is none of these.
    """
    try:
        text = read_file(path).decode()
        names = _of_json(parse_json(text)) if path.suffix == ".json" else text.splitlines()
    except MISFITS as error:
        raise _unread(path, reason(error)) from error
    entries = tuple(name.strip() for name in names if name.strip())
    if len(entries) < _FEWEST_CLASSES or len(set(entries)) < len(entries):
        twice = next((one for index, one in enumerate(entries) if one in entries[:index]), None)
        raise _unread(path, f"{len(entries)} names" if twice is None else f"{twice!r} twice")
    first = [entry.split()[0] for entry in entries]
    words = {word: index for index, word in enumerate(first) if first.count(word) == 1}
    return entries, words | {entry: index for index, entry in enumerate(entries)}


def _of_json(found: Any) -> list[str]:
    if isinstance(found, dict):
        if all(isinstance(value, int) for value in found.values()):
            found = {index: name for name, index in found.items()}
        by_index = {int(index): value for index, value in found.items()}
        found = [by_index[index] for index in range(len(by_index))]
    return [" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in found]


def _unread(path: Path, got: str) -> DataError:
    return DataError(
        f"data.classes {path}",
        expected="a name a line, or JSON: a list, {name: index} or {index: name}",
        got=got,
        cure="list every class of the network once, in the order of its logits",
    )


def _notes(parts: Mapping[str, _Part], classes: Sequence[str], class_map: Path | None) -> Iterator[str]:
    """Say what of the layout may be meant otherwise."""
    train, test = parts["train"].images, parts["test"].path.name
    if test != "test":
        yield f"there is no test/: {test}/ is what is scored, and validation images are held out of train/"
    if "validation" in parts:
        yield f"{parts['validation'].path.name}/ is the validation split: data.validation holds nothing out of train/"
    as_text = sorted(train)
    if class_map is None and _are_numbers(train) and as_text != list(classes):
        yield (
            f"the classes are numbers, in their order ({', '.join(classes[:3])}, ...): torchvision's ImageFolder has"
            f" them as text ({', '.join(as_text[:3])}, ...); where the weights have too, list them with data.classes"
        )
    for part in parts.values():
        if absent := [name for name in train if not part.images.get(name)]:
            yield f"no images in {part.path.name}/ of {listed(absent, _NAMED)}: nothing is known of these classes there"
    strays = [(part.path, file) for part in parts.values() for file in part.strays]
    yield from _stray_note([f"{path.name}/{file.relative_to(path)}" for path, file in strays])


def _stray_note(strays: Sequence[str]) -> tuple[str, ...]:
    said = "passed over, as torchvision does, since their names are no images'"
    return (f"{said}: {listed(strays, _NAMED)}",) if strays else ()


def _rotation_note(rotated: int, total: int, framing: Framing) -> tuple[str, ...]:
    if not rotated:
        return ()
    done = "and are" if framing.exif_rotation else "and are not, as in torchvision: data.exif_rotation does it"
    return (f"{rotated} of {total} images ask by EXIF to be rotated, {done}",)


SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
_LARGEST_BYTES = 64 * 10**9  # unpacked; ImageNet's validation set has 6.7 GB
_SMALL_BYTES, _RATIO = 10**9, 100  # what may be unpacked of a small archive, and how much more than it takes itself
_MOST_MEMBERS = 10 * 10**6
_NAMES = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_LONGEST_NAME = 10**6  # bytes, with what pax keeps beside it


def is_archive(path: Path) -> bool:
    """Whether the path names an archive by its suffix."""
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """Return the file's name without the suffix of an archive; another name stays as it is."""
    return next((path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix)), path.name)


def unpacked(path: Path) -> Path:
    """Unpack an archive into the cache, once for each state of the file, and return the folder that holds train/.

    Links, devices, absolute names and names that leave the folder are refused.

    Raises:
        DataError: it is absent, damaged, hostile or too large.
        StoreError: the disk is full, or the cache cannot be written.
    """
    try:
        file_size(path, most=_LARGEST_BYTES)
        state = path.stat()
        key = hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
        target = data_cache() / f"{stem(path)}-{key}"
        with storing(target, only_full=True), locked(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
                    extract(path, Path(folder) / "content")
                    (Path(folder) / "content").replace(target)
    except FAULTS as error:
        raise DataError(
            f"archive {path}",
            expected="a whole archive of train/CLASS/* and test/CLASS/*, without links or names that leave it",
            got=reason(error),
            cure="fetch or pack it again, or unpack it yourself and name the folder",
        ) from error
    return next(_roots(target), target)


def _roots(target: Path) -> Iterator[Path]:
    """Yield the folder with train/ in it: the top, or the one folder at the top."""
    for folder in (target, *sorted(entry for entry in target.iterdir() if entry.is_dir())):
        if (folder / "train").is_dir():
            yield folder


def extract(path: Path, folder: Path) -> None:
    """Unpack an archive into a new folder, and nothing beside it.

    Raises:
        ValueError: it holds a link or a device, or more than the disk or any data set takes.
        OSError: it cannot be read, or the folder not be written.
        BadZipFile: it is damaged.
    """
    folder.mkdir()
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as zipped:
            _check_size((info.file_size for info in zipped.infolist()), path, folder)
            zipped.extractall(folder)  # noqa: S202  it drops drive letters, leading slashes and ".."
        return
    with tarfile.open(path, tarinfo=_Member) as tar:
        _check_size((member.size for member in tar), path, folder)
        members = tar.getmembers()
        if odd := next((member.name for member in members if not (member.isfile() or member.isdir())), None):
            raise ValueError(f"{odd!r}, which is neither a file nor a folder")
        tar.extractall(folder, members=members, filter="data")


class _Member(tarfile.TarInfo):
    """A member whose names are no longer than a file system takes: tarfile reads them whole, whatever they claim."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _NAMES and self.size > _LONGEST_NAME:
            raise tarfile.ReadError(f"a name of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]  # tarfile documents it for subclasses


def _check_size(sizes: Iterator[int], path: Path, folder: Path) -> None:
    """Refuse members that unpack to too much; what is listed is summed before what follows is looked for."""
    most = min(_LARGEST_BYTES, max(_SMALL_BYTES, _RATIO * path.stat().st_size))
    free = shutil.disk_usage(folder).free
    for count, total in enumerate(itertools.accumulate(sizes)):
        if total > most or count > _MOST_MEMBERS:
            raise ValueError(f"{total / 1e9:.1f} GB in {count} members unpacked, above {most / 1e9:.1f} GB")
        if total > free:
            raise ValueError(f"{total / 1e9:.1f} GB unpacked, but {free / 1e9:.1f} GB free in {folder.parent}")
