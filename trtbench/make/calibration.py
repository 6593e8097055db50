"""What calibrates INT8: which images, what flows through a graph on them, their pixels, or an imported cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of facts at run time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.calibrate.exclusion import Judgement  # noqa: TC001  likewise
from trtbench.calibrate.leaks import check_leak
from trtbench.calibrate.manifest import load_manifest, make_manifest, save_manifest, short_notes, verify_manifest
from trtbench.calibrate.ranges import ALL_ZERO_AMAX
from trtbench.disk import write_atomically
from trtbench.engines.tensorrt.caches import match_scales, parse_cache, thresholds
from trtbench.errors import DataError, GraphError
from trtbench.make.recipe import Facts, Given, Ingredient, recipe
from trtbench.progress import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from trtbench.calibrate.manifest import CalibrationManifest
    from trtbench.calibrate.ranges import Histogram
    from trtbench.engines.tensorrt.caches import MatchedScales
    from trtbench.graph.view import WeightClip
    from trtbench.make.makings import Makings
    from trtbench.records import Dataset, Preprocessing, Split
    from trtbench.store import Artefact
    from trtbench.suite import Method

_GRAPH = "model.onnx"
_MANIFEST = "manifest.json"
_PIXELS = "images.npy"
_DEFAULT_PER_CLASS = 50  # source study 001: 500 images of CIFAR-10
_DEFAULT_UNLABELLED = 500
_TOLD = 5  # names a note lists
_HELD_OUT = 100  # images that judge: few, so that it is cheap; one of them is 1 % of agreement
_GUARDED: Method = "entropy"
_JUDGED: tuple[Method, ...] = ("mse", "percentile", "minmax")  # beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFacts(Facts):
    """How many images a manifest names, the sha256 of all its fields, and which classes it took short."""

    images: int
    sha256: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesFacts(Facts):
    """How many tensors have a range, and by which method.

    Where `auto` chose it, `judged` has what each method came to, and `given_way` counts the tensors on which entropy's
    error was so large that it took mse's threshold.
    """

    tensors: int
    method: str
    judged: Mapping[str, Judgement] = field(default_factory=dict)
    given_way: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelsFacts(Facts):
    """How many images a file of pixels holds."""

    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """The images of a manifest as a network reads them."""

    manifest: Ingredient
    train: Split
    preprocessing: Preprocessing
    batch_size: int

    def batches(self, *, size: int | None = None) -> Iterator[NDArray[np.float32]]:
        """Yield them in the manifest's order, normalised."""
        from trtbench.data import batches

        chosen = load_manifest(self.manifest.path(_MANIFEST)).indices
        return batches(self.train.images, self.preprocessing, size=size or self.batch_size, chosen=chosen)

    def outputs(self, graph: onnx.ModelProto) -> list[NDArray[np.float32]]:
        """Return what a graph computes of them, (images, ...) each, its Q/DQ pairs fused as this CPU fuses them."""
        from trtbench.engines.onnxruntime import iterate_activations

        outputs = tuple(item.name for item in graph.graph.output)
        computed = [found.values() for found in iterate_activations(graph, outputs, self.batches())]
        return [np.concatenate(one) for one in zip(*computed, strict=True)]

    def judge(self, quantized: Iterable[onnx.ModelProto], in_float: onnx.ModelProto) -> list[Judgement]:
        """Compare what quantized graphs compute of them with what the float one does."""
        from trtbench.calibrate.exclusion import judge, judge_outputs

        reference = self.outputs(in_float)
        if len(reference) == 1 and reference[0].ndim == len(("batch", "classes")):
            return [judge(self.outputs(graph)[0], reference[0]) for graph in quantized]
        return [judge_outputs(self.outputs(graph), reference) for graph in quantized]


@recipe(kind="manifest", facts=ManifestFacts, content=(_MANIFEST,), packages=("numpy",), version=1)
def sampled(
    folder: Path, *, dataset: Dataset, per_class: int | None, total: int | None, seed: int, allow_short: bool
) -> ManifestFacts:
    """Choose training images, balanced by class, of which none stands in validation or test."""
    made = make_manifest(dataset, per_class=per_class, total=total, seed=seed, allow_short=allow_short)
    return _kept(made, folder, dataset, per_class=per_class)


@recipe(kind="manifest", facts=ManifestFacts, content=(_MANIFEST,), version=1)
def committed(
    folder: Path, *, dataset: Dataset, manifest: Given[CalibrationManifest], per_class: int | None
) -> ManifestFacts:
    """Take a manifest as it was chosen before, once it is proven to be of these images and to leak none."""
    verify_manifest(manifest.value, dataset)
    check_leak(dataset, manifest.value.indices)
    return _kept(manifest.value, folder, dataset, per_class=per_class)


@recipe(kind="manifest", facts=ManifestFacts, content=(_MANIFEST,), packages=("numpy",), version=1)
def held_out(folder: Path, *, dataset: Dataset, manifest: Ingredient) -> ManifestFacts:
    """Choose training images that calibrate nothing, to judge by; where all calibrate, the calibration images."""
    calibrating = load_manifest(manifest.path(_MANIFEST))
    used, seed = calibrating.indices, calibrating.seed
    try:
        chosen = make_manifest(dataset, total=_HELD_OUT, seed=seed, allow_short=True, but=used)
    except DataError:
        chosen = calibrating
    return _kept(chosen, folder, dataset, per_class=None)


@recipe(
    kind="ranges", facts=RangesFacts, content=("ranges.json",), packages=("onnx", "onnxruntime", "numpy"), version=3
)
def collected(
    folder: Path,
    *,
    graph: Ingredient,
    images: CalibrationSet,
    method: Method,
    percentile: float | None,
    exclude: tuple[str, ...],
) -> RangesFacts:
    """Find the clip threshold of every activation that a placement may quantize."""
    from trtbench.calibrate.ranges import thresholds

    options: dict[str, Any] = {} if percentile is None else {"percentile": percentile}
    amax = thresholds(_observed(graph, images, exclude), method=method, **options)
    return _ranges_kept(folder, amax, RangesFacts(tensors=len(amax), method=method))


@recipe(
    kind="ranges", facts=RangesFacts, content=("ranges.json",), packages=("onnx", "onnxruntime", "numpy"), version=3
)
def judged(
    folder: Path,
    *,
    graph: Ingredient,
    images: CalibrationSet,
    judges: CalibrationSet,
    percentile: float,
    weights: WeightClip,
    exclude: tuple[str, ...],
) -> RangesFacts:
    """Find the thresholds by several methods in one pass, and keep those whose INT8 graph comes nearest to the float.

    The INT8 graph is that of ONNX Runtime's CPU kernels, which quantizes most; the images are others than those that
    calibrate.
    """
    import onnx

    from trtbench.calibrate.exclusion import nearest
    from trtbench.calibrate.ranges import guarded_entropy, thresholds
    from trtbench.graph.placement import plan_qdq
    from trtbench.graph.qdq import insert_qdq

    observed = _observed(graph, images, exclude)
    guarded, given_way = guarded_entropy(observed)
    found: dict[str, dict[str, float]] = {_GUARDED: guarded}
    found |= {method: thresholds(observed, method=method, percentile=percentile) for method in _JUDGED}
    proto = onnx.load(graph.path(_GRAPH))
    plan = plan_qdq(proto, exclude=exclude, runtime="onnxruntime-cpu")
    graphs = (insert_qdq(proto, plan, amax, weights=weights) for amax in found.values())
    judgements = dict(zip(found, judges.judge(graphs, proto), strict=True))
    best = nearest(judgements)
    amax, count = found[best], len(given_way) if best == _GUARDED else 0
    return _ranges_kept(folder, amax, RangesFacts(tensors=len(amax), method=best, judged=judgements, given_way=count))


@recipe(kind="images", facts=PixelsFacts, content=(_PIXELS,), version=1)
def pixels(folder: Path, *, split: Split, manifest: Ingredient) -> PixelsFacts:
    """Write the uint8 pixels of the images that a manifest names, in its order, for runtimes to map."""
    chosen = split.images[[*load_manifest(manifest.path(_MANIFEST)).indices]]
    with (folder / _PIXELS).open("wb") as file:
        np.save(file, chosen)
    return PixelsFacts(images=len(chosen))


def manifest(makings: Makings) -> Artefact[ManifestFacts]:
    """Return the calibration manifest: the committed one if it fits, else one that is sampled.

    It stands in the store, and where the user named a folder for manifests, there too. Where the suite says no size,
    a class that has too few images gives those.
    """
    config, book, name = makings.suite.calibration, makings.book, makings.suite.name
    is_default = config.per_class is None and config.total is None
    per_class = _DEFAULT_PER_CLASS if is_default else config.per_class
    if is_default and not makings.dataset.is_labelled:
        per_class = max(1, min(_DEFAULT_UNLABELLED, len(makings.dataset.train) * 4 // 5))  # some are left to judge by
    sizes: dict[str, Any] = {"per_class": per_class, "total": config.total}
    sample = {**sizes, "dataset": makings.dataset, "seed": config.seed, "allow_short": config.allow_short or is_default}
    found = _committed_manifest(makings, **sizes)
    if found is not None:
        same = book.find(sampled, **sample)
        if same is None or same.facts.sha256 != found.sha256:
            asked = None if config.manifest else per_class  # a given manifest is of the user's own size
            given = Given(found, key=found.sha256)
            return book.make(committed, name, dataset=makings.dataset, manifest=given, per_class=asked)
    made = book.make(sampled, name, **sample)
    if found is None and makings.places.calib is not None and not book.is_dry:
        write_atomically(_committed_path(makings), made.path(_MANIFEST).read_bytes())
    return made


def calibration_set(makings: Makings) -> CalibrationSet:
    """Return the images of a suite's manifest, in its batches."""
    return CalibrationSet(
        manifest=manifest(makings),
        train=makings.dataset.train,
        preprocessing=makings.dataset.preprocessing,
        batch_size=makings.suite.calibration.batch_size,
    )


def judges(makings: Makings) -> CalibrationSet:
    """Return the training images that INT8 graphs are judged on beside the float one."""
    used = manifest(makings)
    chosen = makings.book.make(held_out, f"{makings.suite.name}/held out", dataset=makings.dataset, manifest=used)
    return replace(calibration_set(makings), manifest=chosen)


def ranges_of(
    makings: Makings, graph: Artefact[Any], item: str, *, method: Method | None = None
) -> Artefact[RangesFacts]:
    """Return the ranges of a float graph by a method, by default the suite's."""
    config, images = makings.suite.calibration, calibration_set(makings)
    chosen = method or config.method
    if chosen == "auto":
        return makings.book.make(
            judged,
            item,
            graph=graph,
            images=images,
            judges=judges(makings),
            percentile=config.percentile,
            weights=config.weights,
            exclude=config.exclude,
        )
    return makings.book.make(
        collected,
        item,
        graph=graph,
        images=images,
        method=chosen,
        percentile=config.percentile if chosen == "percentile" else None,
        exclude=config.exclude,
    )


def calibration_pixels(makings: Makings) -> Artefact[PixelsFacts]:
    """Return the manifest's pixels in its order, for runtimes that calibrate by themselves."""
    item, train = f"{makings.suite.name}/calibration", makings.dataset.train
    return makings.book.make(pixels, item, split=train, manifest=manifest(makings))


def _observed(graph: Ingredient, images: CalibrationSet, exclude: tuple[str, ...]) -> dict[str, Histogram]:
    import onnx

    from trtbench.calibrate.ranges import collect_histograms
    from trtbench.engines.onnxruntime import iterate_activations
    from trtbench.graph.placement import activation_tensors, plan_qdq
    from trtbench.precision import PLACEMENTS

    proto = onnx.load(graph.path(_GRAPH))
    plans = [plan_qdq(proto, exclude=exclude, runtime=runtime) for runtime in PLACEMENTS]
    tensors = tuple(dict.fromkeys(tensor for plan in plans for tensor in activation_tensors(plan)))
    return collect_histograms(iterate_activations(proto, tensors, images.batches()))


def _ranges_kept(folder: Path, amax: Mapping[str, float], facts: RangesFacts) -> RangesFacts:
    write_atomically(folder / "ranges.json", json.dumps(amax, indent=1, sort_keys=True))
    return facts


def _kept(manifest: CalibrationManifest, folder: Path, dataset: Dataset, *, per_class: int | None) -> ManifestFacts:
    save_manifest(folder / _MANIFEST, manifest)
    notes = short_notes(manifest, per_class=per_class, labels=dataset.train.labels)
    return ManifestFacts(images=len(manifest.images), sha256=manifest.sha256, notes=notes)


def _committed_path(makings: Makings) -> Path:
    return makings.suite.calibration.manifest or makings.places.manifests / f"{makings.suite.name}.json"


def _committed_manifest(makings: Makings, *, per_class: int | None, total: int | None) -> CalibrationManifest | None:
    """Return the committed manifest if it is of these images and this size; say so where it is not."""
    config, path, dataset = makings.suite.calibration, _committed_path(makings), makings.dataset
    if config.manifest is not None:
        return load_manifest(path)  # the user's own choice: verified against the pixels, never replaced
    if not path.exists():
        return None
    found = load_manifest(path)
    images = total or (per_class or 0) * len(np.unique(dataset.train.labels))
    wanted = (dataset.train.sha256, dataset.preprocessing.fingerprint, config.seed)
    takes_short = config.allow_short or (config.per_class is None and config.total is None)
    is_short = takes_short and len(found.indices) < images
    if (found.train_sha256, found.preprocessing, found.seed) == wanted and (len(found.indices) == images or is_short):
        return found
    detail = f"{path} is of other images, size or seed: sampled again"
    makings.tell(Event(stage="manifest", item=makings.suite.name, state="note", detail=detail))
    return None


def import_cache(graph: Path, cache: Path, output: Path) -> dict[str, Any]:
    """Place Q/DQ pairs in a float graph with the activation scales of a cache; weights have their own.

    Args:
        graph: the float ONNX graph that was calibrated.
        cache: the file that TensorRT's calibrator wrote.
        output: the folder of ranges.json, as a calibration writes it, and of model.qdq.onnx.

    Returns:
        How many `tensors` have a scale of the cache, by which `method`, its `cache_sha256`, and `notes`: which of its
        tensors the graph does not ask for, goes by another name for, or has only zeros of.

    Raises:
        DataError: the cache cannot be read.
        GraphError: it lacks a tensor of the graph, or TensorRT would not take the graph that comes of it.
    """
    import onnx

    from trtbench.graph.lint import lint
    from trtbench.graph.placement import activation_tensors, plan_qdq
    from trtbench.graph.qdq import insert_qdq

    content, text = _read(cache)
    parsed = parse_cache(text, origin=cache.name)
    proto = onnx.load(graph)
    plan = plan_qdq(proto)
    matched = match_scales(parsed, activation_tensors(plan), origin=cache.name)
    amax = thresholds(matched.scales, all_zero=ALL_ZERO_AMAX)
    quantized = insert_qdq(proto, plan, amax)
    if findings := lint(quantized):
        got = "; ".join(f"{found.node}: {found.message} ({found.rule})" for found in findings[:_TOLD])
        raise GraphError(f"Q/DQ graph of {cache.name}", got=got, cure="export the model another way")
    write_atomically(output / "ranges.json", json.dumps(amax, indent=1, sort_keys=True))
    write_atomically(output / "model.qdq.onnx", quantized.SerializeToString(deterministic=True))
    method, sha256 = f"TensorRT's {parsed.algorithm}", hashlib.sha256(content).hexdigest()
    return {"tensors": len(amax), "method": method, "cache_sha256": sha256, "notes": _notes(matched)}


def _read(cache: Path) -> tuple[bytes, str]:
    try:
        content = cache.read_bytes()
        return content, content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"calibration cache {cache}", expected="text", got=str(error)) from error
    except OSError as error:
        cure = "give the file that a calibrator's write_calibration_cache wrote"
        raise DataError(f"calibration cache {cache}", got=error.strerror or str(error), cure=cure) from error


def _notes(matched: MatchedScales) -> tuple[str, ...]:
    zeros = [tensor for tensor, scale in matched.scales.items() if scale == 0]
    changes = (
        ("tensors of the cache the placement asks no scale of", matched.unused),
        ("tensors by the cache's name", tuple(f"{ours} = {theirs}" for ours, theirs in matched.renamed.items())),
        ("tensors that were 0 on all images", tuple(zeros)),
    )
    return tuple(
        f"{len(names)} {what}: {', '.join(names[:_TOLD])}{', ...' if len(names) > _TOLD else ''}"
        for what, names in changes
        if names
    )
