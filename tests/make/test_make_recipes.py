"""All recipes: whatever a maker reads is an argument, and every argument that is not an aside is in the key."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import trtbench.make
from trtbench.engines.sidecar import Sidecar
from trtbench.make.calibration import CalibrationSet
from trtbench.make.makings import Architecture
from trtbench.make.networks import Training
from trtbench.make.recipe import Aside, Given, Recipe
from trtbench.make.refine import QdqOptions
from trtbench.records import Dataset, Preprocessing, Split
from trtbench.store import Artefact, Store
from trtbench.studies.truth import Images
from trtbench.suite import ExportConfig, FixedPointVariant, TrainConfig
from trtbench.suite.base import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODULES = [
    *(f"trtbench.make.{name}" for name in ("calibration", "gains", "graphs", "images", "networks", "rescue", "trial")),
    *(f"trtbench.studies.{name}" for name in ("calibration_run", "kernels", "truth")),
]
_RECIPES = sorted(
    {
        one.name: one
        for module in _MODULES
        for one in vars(importlib.import_module(module)).values()
        if isinstance(one, Recipe)
    }.items()
)
_IDS = [name for name, _ in _RECIPES]
_EACH = pytest.mark.parametrize("recipe", [one for _, one in _RECIPES], ids=_IDS)

# what the machine, the clock or the process would tell a maker behind its arguments' back
_READ = (ast.Attribute, ast.Name)
_OUTSIDE = {"environ", "getenv", "get_num_threads", "is_available", "__version__", "version", "time", "datetime"}


def _artefact(sha256: str) -> Artefact[Any]:
    return Artefact(kind="graph", key="k", folder=Path(), sha256=sha256, facts=None, seconds=0.0, is_cached=True)


def _split(value: int) -> Split:
    return Split(images=np.full((2, 3, 2, 2), value, np.uint8), labels=np.zeros(2, np.int64))


_FIT = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=2, crop_ratio=0.9)
_DATASET = Dataset(
    name="d", classes=("a", "b"), train=_split(1), validation=_split(2), test=_split(3), preprocessing=_FIT
)
_VALUES: dict[str, Any] = {
    "Architecture": Architecture(name="resnet20", num_classes=2, source="1.0"),
    "CalibrationSet": CalibrationSet(manifest=_artefact("m"), train=_split(1), preprocessing=_FIT, batch_size=2),
    "Dataset": _DATASET,
    "ExportConfig": ExportConfig(),
    "Given[CalibrationManifest]": Given(None, key="a"),
    "Given[Path]": Given(Path("a"), key="a"),
    "Given[onnx.ModelProto]": Given(onnx.ModelProto(), key="a"),
    "Given[tuple[Path, Sidecar]]": Given((Path("a"), Sidecar), key=["a"]),
    "Graph": Given(onnx.ModelProto(), key="a"),
    "HalfType": "fp16",
    "Images": Images(split=_split(1), preprocessing=_FIT, batch_size=2),
    "Ingredient": _artefact("a"),
    "Mapping[str, Any]": {"threads": 1},
    "Mapping[str, Ingredient]": {"weights": _artefact("w")},
    "Method": "mse",
    "Preprocessing": _FIT,
    "QdqOptions": QdqOptions(weights="mse", rounding="gptq", bias_correction=True),
    "Runtime": "tensorrt",
    "Split": _split(1),
    "Training": Training(dataset=_DATASET, config=TrainConfig(), teacher=_artefact("t"), device="cpu", threads=1),
    "WeightClip": "mse",
    "Variant": FixedPointVariant(kind="fixed_point", name="v", after="u"),
    "bool": True,
    "float": 99.9,
    "int": 1,
    "str": "s",
    "tuple[int, int, int]": (3, 32, 32),
    "tuple[int, ...]": (1, 2),
    "tuple[str, ...]": ("a", "b"),
}


def _arguments(recipe: Recipe[..., Any]) -> dict[str, Any]:
    annotations = {name: one.annotation for name, one in _parameters(recipe).items()}
    return {
        name: Aside(name) if text.startswith("Aside[") else _VALUES[text.removesuffix(" | None")]
        for name, text in annotations.items()
    }


def _parameters(recipe: Recipe[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(recipe.maker).parameters.items())[1:])


@functools.singledispatch
def _others(value: Any) -> Iterator[Any]:
    """Yield values that differ from one in a single thing, however deep it lies."""
    for field in [one for one in dataclasses.fields(value) if one.metadata.get("keyed", True)]:
        for other in _others(getattr(value, field.name)):
            yield dataclasses.replace(value, **{field.name: other})


@_others.register(bool)
def _(value: bool) -> Iterator[Any]:  # noqa: FBT001  the dispatch is by position
    yield not value


@_others.register(float)
@_others.register(int)
def _(value: float) -> Iterator[Any]:
    yield value + 1


@_others.register(str)
def _(value: str) -> Iterator[Any]:
    yield value + "x"


@_others.register(Artefact)
def _(value: Artefact[Any]) -> Iterator[Any]:
    yield _artefact(value.sha256 + "x")


@_others.register(Split)
def _(value: Split) -> Iterator[Any]:
    yield _split(9 - int(value.images.max()))


@_others.register(Given)
def _(value: Given[Any]) -> Iterator[Any]:
    yield Given(value.value, key=[value.key, "x"])


@_others.register(Part)
def _(value: Part) -> Iterator[Any]:
    asides = {"name", "after", "budget"}  # the last two are arguments of their own
    return (value.model_copy(update={name: "other"}) for name in type(value).model_fields.keys() - asides)


@_others.register(dict)
def _(value: dict[str, Any]) -> Iterator[Any]:
    yield {**value, "x": 1}
    for name, one in value.items():
        yield from ({**value, name: other} for other in _others(one))


@_others.register(tuple)
def _(value: tuple[Any, ...]) -> Iterator[Any]:
    yield value[:-1]
    yield (*value[:-1], *_others(value[-1]))


def _key(recipe: Recipe[..., Any], arguments: dict[str, Any]) -> str:
    return Store(Path()).key(recipe.kind, recipe.inputs(arguments))


def test_every_recipe_of_the_package_is_looked_at() -> None:
    package = Path(trtbench.make.__file__).parent.parent
    declared = {
        node.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        for one in node.decorator_list
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "recipe"
    }

    assert declared == set(_IDS)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # any other value will do
@_EACH
def test_whatever_differs_in_an_argument_gives_another_key(recipe: Recipe[..., Any]) -> None:
    arguments = _arguments(recipe)
    keyed = {name: value for name, value in arguments.items() if not isinstance(value, Aside)}
    keys = [_key(recipe, arguments)]

    for name, value in keyed.items():
        others = list(_others(value))
        assert others, name
        keys += [_key(recipe, arguments | {name: other}) for other in others]

    assert len(set(keys)) == len(keys)


@_EACH
def test_an_aside_changes_no_key(recipe: Recipe[..., Any]) -> None:
    arguments = _arguments(recipe)
    others = {name: Aside("other") if isinstance(value, Aside) else value for name, value in arguments.items()}

    assert _key(recipe, others) == _key(recipe, arguments)


@_EACH
def test_a_version_of_the_recipe_is_in_its_key_and_that_of_the_package_is_not(
    recipe: Recipe[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _arguments(recipe)
    before = _key(recipe, arguments)
    monkeypatch.setattr(trtbench, "__version__", "99.0.0")

    assert _key(recipe, arguments) == before
    assert _key(dataclasses.replace(recipe, version=recipe.version + 1), arguments) != before


@_EACH
def test_a_maker_reads_nothing_but_its_arguments(recipe: Recipe[..., Any]) -> None:
    parameters, code = _parameters(recipe).values(), recipe.maker.__code__
    nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(recipe.maker)))))
    read = {node.attr if isinstance(node, ast.Attribute) else node.id for node in nodes if isinstance(node, _READ)}

    assert {one.kind for one in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert {one.default for one in parameters} == {inspect.Parameter.empty}
    assert not code.co_freevars
    assert read.isdisjoint(_OUTSIDE)
    for name in set(code.co_names) & recipe.maker.__globals__.keys():
        found = recipe.maker.__globals__[name]
        assert callable(found) or inspect.ismodule(found) or isinstance(found, (str, int, float, tuple)), name


@pytest.mark.parametrize("path", sorted(Path(trtbench.make.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_here_knows_the_version_of_the_package(path: Path) -> None:
    assert "__version__" not in path.read_text(encoding="utf-8")
