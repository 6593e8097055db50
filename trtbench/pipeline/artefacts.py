"""Each artefact of a suite by name: networks, graphs, manifest, ranges, images; made once and kept."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench import __version__
from trtbench._optional import version
from trtbench.calibrate.leaks import check_leak
from trtbench.calibrate.manifest import (
    load_manifest,
    make_manifest,
    save_manifest,
    short_notes,
    verify_manifest,
)
from trtbench.errors import ConfigError, GraphError, UnsupportedError
from trtbench.jsonable import to_jsonable
from trtbench.pipeline.events import Event
from trtbench.pipeline.graph_methods import before, method_graph
from trtbench.pipeline.networks import Networks, source_of
from trtbench.store import Artefact, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.calibrate.manifest import CalibrationManifest
    from trtbench.graph.half import HalfGraph, Method
    from trtbench.graph.half_check import HalfCheck
    from trtbench.graph.half_rules import HalfType
    from trtbench.graph.placement import Runtime
    from trtbench.suite import Variant

_ONNX = "onnx:"
_DEFAULT_PER_CLASS = 50  # source study 001: 500 images of CIFAR-10
_HALF_TYPES: Mapping[str, HalfType] = {"fp16": "fp16", "bf16": "bf16", "int8+fp16": "fp16"}
_SHOWN_NODES = 3
_CHECKED_IMAGES = 32  # that a half graph is compared on: whatever the batch size, ten classes are seen
# precision -> whose kernels its Q/DQ nodes are placed for
PLACEMENTS: Mapping[str, Runtime] = {"int8": "tensorrt", "int8-ort": "onnxruntime-cpu"}


class Artefacts(Networks):
    """All artefacts of one suite that engines are built from."""

    @property
    def is_onnx(self) -> bool:
        """Whether the network comes as ONNX, without its PyTorch source."""
        return self.suite.model.name.startswith(_ONNX)

    def graph(self, variant: Variant) -> Artefact:
        """The float ONNX graph of a variant."""
        if self.is_onnx:
            return self._given_graph(variant)
        if variant.makes == "graph":
            return method_graph(self, variant)
        network = self.variant(variant)
        config = self.suite.export
        inputs = {
            "network": network.sha256,
            "source": source_of(self.suite.model.name),
            "export": config.model_dump(mode="json"),
            "input_shape": self.input_shape,
            "torch": version("torch"),
            "onnx": version("onnx"),
            "trtbench": __version__,
        }

        def export(folder: Path) -> Mapping[str, Any]:
            from trtbench.graph.export import export_onnx

            record = export_onnx(
                self.network(network), folder / "model.onnx", input_shape=self.input_shape, config=config
            )
            facts = {name: value for name, value in to_jsonable(record).items() if name != "path"}
            return {"graph": facts, **network.facts}

        return self.make("graph", variant.name, inputs, export, content=("model.onnx",))

    @functools.cached_property
    def manifest(self) -> Artefact:
        """The calibration manifest: the committed one if it fits, else sampled and written under calib/."""
        config = self.suite.calibration
        sizes = {"per_class": config.per_class, "total": config.total}
        if config.per_class is None and config.total is None:
            sizes["per_class"] = _DEFAULT_PER_CLASS
        committed = self._committed_manifest(sizes)
        inputs = {
            "dataset": self.dataset.sha256,
            "preprocessing": self.dataset.preprocessing.fingerprint,
            **sizes,
            "seed": config.seed,
            **({"allow_short": True} if config.allow_short else {}),
        }
        sampled = self.store.find("manifest", inputs)
        if committed is not None and (sampled is None or sampled.facts["sha256"] != committed.sha256):
            inputs["committed"] = committed.sha256

        def sample(folder: Path) -> Mapping[str, Any]:
            if committed is not None:
                verify_manifest(committed, self.dataset)
                check_leak(self.dataset, committed.indices)
            manifest = committed or make_manifest(
                self.dataset, **sizes, seed=config.seed, allow_short=config.allow_short
            )
            save_manifest(folder / "manifest.json", manifest)
            asked = None if config.manifest else sizes["per_class"]  # a given manifest is of the user's own size
            notes = short_notes(manifest, per_class=asked)
            return {"images": len(manifest.images), "sha256": manifest.sha256, "notes": notes}

        made = self.make("manifest", self.suite.name, inputs, sample, content=("manifest.json",))
        if committed is None and not self.is_dry:
            write_atomically(self._manifest_path, made.path("manifest.json").read_bytes())
        return made

    def calibrated_graph(self, variant: Variant) -> Artefact:
        """The float graph that INT8 starts from: a variant's own, or with its layers equalised."""
        graph = self.graph(variant)
        if not self.suite.calibration.equalise:
            return graph

        def make(folder: Path) -> Mapping[str, Any]:
            import onnx

            from trtbench.graph.equalise import equalise

            found = equalise(onnx.load(graph.path("model.onnx")))
            write_atomically(folder / "model.onnx", found.proto.SerializeToString(deterministic=True))
            return {"pairs": found.pairs, "clips": found.clips}

        inputs = {"graph": graph.sha256, "onnx": version("onnx"), "trtbench": __version__}
        return self.make("equalised", variant.name, inputs, make, content=("model.onnx",))

    def ranges(self, variant: Variant) -> Artefact:
        """The clip threshold of every activation that a placement may quantize, by the suite's method."""
        if variant.makes == "graph" and variant.reads_images():
            return self.ranges(before(variant))  # those it learnt with
        graph, manifest, config = self.calibrated_graph(variant), self.manifest, self.suite.calibration
        inputs = {
            "graph": graph.sha256,
            "manifest": manifest.facts["sha256"],
            "method": config.method,
            "percentile": config.percentile if config.method == "percentile" else None,
            "batch_size": config.batch_size,
            "onnxruntime": version("onnxruntime-gpu") or version("onnxruntime"),
            "numpy": version("numpy"),
            "trtbench": __version__,
            **({"exclude": config.exclude} if config.exclude else {}),
        }

        def collect(folder: Path) -> Mapping[str, Any]:
            import onnx

            from trtbench.calibrate.ranges import collect_ranges
            from trtbench.engines.onnxruntime import iterate_activations
            from trtbench.graph.placement import activation_tensors, plan_qdq

            path = graph.path("model.onnx")
            proto, left_out = onnx.load(path), config.exclude
            plans = [plan_qdq(proto, exclude=left_out, runtime=runtime) for runtime in PLACEMENTS.values()]
            tensors = tuple(dict.fromkeys(tensor for plan in plans for tensor in activation_tensors(plan)))
            amax = collect_ranges(
                iterate_activations(path, tensors, self._manifest_batches()),
                method=config.method,
                percentile=config.percentile,
            )
            write_atomically(folder / "ranges.json", json.dumps(amax, indent=1, sort_keys=True))
            return {"tensors": len(amax)}

        return self.make("ranges", variant.name, inputs, collect, content=("ranges.json",))

    def quantized_graph(self, variant: Variant, *, precision: str = "int8") -> Artefact:
        """The ONNX graph of a variant with Q/DQ nodes: where TensorRT wants them, or where ONNX Runtime's CPU does."""
        graph, ranges, config = self.calibrated_graph(variant), self.ranges(variant), self.suite.calibration
        runtime = PLACEMENTS[precision]
        reads_images = config.bias_correction or config.rounding != "nearest"
        inputs = {
            "graph": graph.sha256,
            "ranges": ranges.sha256,
            "runtime": runtime,
            "options": config.model_dump(mode="json", include={"weights", "rounding", "bias_correction"}),
            "images": (self.manifest.facts["sha256"], config.batch_size) if reads_images else None,
            **({"exclude": config.exclude} if config.exclude else {}),
            "onnx": version("onnx"),
            "trtbench": __version__,
        }

        def insert(folder: Path) -> Mapping[str, Any]:
            import onnx

            from trtbench.graph.lint import lint
            from trtbench.graph.placement import plan_qdq
            from trtbench.pipeline.refine import quantize

            proto = onnx.load(graph.path("model.onnx"))
            amax = json.loads(ranges.path("ranges.json").read_bytes())
            plan = plan_qdq(proto, exclude=config.exclude, runtime=runtime)
            quantized = quantize(proto, plan, amax, config, batches=self._manifest_batches)
            if runtime == "tensorrt" and (findings := lint(quantized)):
                raise GraphError(
                    f"Q/DQ graph of {variant.name}",
                    got="; ".join(f"{found.node}: {found.message} ({found.rule})" for found in findings[:10]),
                    cure="exclude the layer, or export the model another way",
                )
            write_atomically(folder / "model.onnx", quantized.SerializeToString(deterministic=True))
            return {"placement": plan.summary}

        return self.make("qdq", f"{variant.name}/{precision}", inputs, insert, content=("model.onnx",))

    def half_graph(self, variant: Variant, *, precision: str, method: Method) -> Artefact:
        """The graph of a variant in fp16, bf16 or int8+fp16 (Q/DQ with FP16 scales), its input and output float32."""
        graph = self.quantized_graph(variant) if precision == "int8+fp16" else self.graph(variant)
        dtype = _HALF_TYPES[precision]
        method = "trtbench" if precision == "int8+fp16" else method  # AutoCast takes no Q/DQ graph
        manifest = self.manifest
        inputs = {
            "graph": graph.sha256,
            "dtype": dtype,
            "method": method,
            "checked_on": manifest.facts["sha256"],
            "onnx": version("onnx"),
            "modelopt": version("nvidia-modelopt") if method == "modelopt" else None,
            "trtbench": __version__,
        }

        def convert(folder: Path) -> Mapping[str, Any]:
            import onnx

            from trtbench.graph.half import to_half
            from trtbench.graph.half_check import check_half

            proto = onnx.load(graph.path("model.onnx"))
            half = to_half(proto, dtype=dtype, method=method)
            images = self.calibration_batches(load_manifest(manifest.path("manifest.json")), size=_CHECKED_IMAGES)
            check = check_half(proto, half.proto, {"input": next(images)}, dtype=dtype)
            write_atomically(folder / "model.onnx", half.proto.SerializeToString(deterministic=True))
            error = check.error if math.isfinite(check.error) else None  # an activation beyond FP16's range
            facts = {"share_of_nodes": half.share_of_nodes, "error": error, "tolerance": check.tolerance}
            return {**facts, "notes": _half_notes(half, check, dtype=dtype)}

        return self.make("half", f"{variant.name}/{precision}", inputs, convert, content=("model.onnx",))

    def calibration_images(self) -> Artefact:
        """The manifest's uint8 pixels in its order as .npy, for runtimes that calibrate by themselves."""
        manifest = self.manifest

        def save(folder: Path) -> Mapping[str, Any]:
            wanted = load_manifest(manifest.path("manifest.json")).indices
            with (folder / "calibration.npy").open("wb") as file:
                np.save(file, self.dataset.train.images[np.asarray(wanted)])
            return {"images": len(wanted)}

        inputs = {"train": self.dataset.train.sha256, "manifest": manifest.facts["sha256"]}
        return self.make("images", f"{self.suite.name}/calibration", inputs, save, content=("calibration.npy",))

    def calibration_notes(self, variant: Variant, *, precision: str) -> tuple[str, ...]:
        """What a row of an int8 engine has to say of its calibration: short classes, and what each option brought."""
        from trtbench.pipeline.gains import gain_notes, option_gains

        short = tuple(self.manifest.facts.get("notes", ()))
        if "implicit" in precision:  # TensorRT's own calibrator knows none of the options
            return short
        placement = precision if precision in PLACEMENTS else "int8"
        return (*short, *gain_notes(option_gains(self, variant, precision=placement)))

    def without(self, option: str) -> Artefacts:
        """Return the artefacts of the same suite with one calibration option at its default."""
        plain = type(self.suite.calibration)()
        return self._beside({option: getattr(plain, option)}, name=f"without-{option}")

    def excluding(self, nodes: Sequence[str]) -> Artefacts:
        """Return the artefacts of the same suite with these nodes, and no others, kept in higher precision."""
        return self._beside({"exclude": tuple(nodes)}, name="excluding")

    def _beside(self, calibration: Mapping[str, Any], *, name: str) -> Artefacts:
        config = self.suite.calibration.model_copy(update=calibration)
        suite = self.suite.model_copy(update={"calibration": config, "name": f"{self.suite.name}-{name}"})
        other = Artefacts(suite, self.places, tell=self.tell, is_dry=self.is_dry)
        other.__dict__ |= {"dataset": self.dataset, "manifest": self.manifest}  # the same ones, at hand already
        return other

    def test_images(self) -> Path:
        """The test split's uint8 pixels as .npy, for worker processes to map."""

        def save(folder: Path) -> Mapping[str, Any]:
            with (folder / "test.npy").open("wb") as file:
                np.save(file, self.dataset.test.images)
            return {}

        inputs = {"test": self.dataset.test.sha256}
        return self.make("images", self.dataset.name, inputs, save, content=("test.npy",)).path("test.npy")

    def _manifest_batches(self) -> Iterator[NDArray[np.float32]]:
        return self.calibration_batches(load_manifest(self.manifest.path("manifest.json")))

    def calibration_batches(
        self, manifest: CalibrationManifest, *, size: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the manifest's images, normalised, in batches."""
        from trtbench.data import batches

        size = size or self.suite.calibration.batch_size
        return batches(self.dataset.train.images, self.dataset.preprocessing, size=size, chosen=manifest.indices)

    @property
    def _manifest_path(self) -> Path:
        return self.suite.calibration.manifest or self.places.calib / f"{self.suite.name}.json"

    def _committed_manifest(self, sizes: Mapping[str, int | None]) -> CalibrationManifest | None:
        """Return the manifest under calib/ if it is of these images and this size; say so where it is not."""
        given = self.suite.calibration.manifest
        if not self._manifest_path.exists() and given is None:
            return None
        found = load_manifest(self._manifest_path)
        wanted = (self.dataset.train.sha256, self.dataset.preprocessing.fingerprint)
        images = sizes["total"] or (sizes["per_class"] or 0) * self.dataset.num_classes
        seed = self.suite.calibration.seed
        if given is not None:
            return found  # the user's own choice: verified against the pixels, never replaced
        is_same = (found.train_sha256, found.preprocessing, found.seed) == (*wanted, seed)
        is_short = self.suite.calibration.allow_short and len(found.indices) < images
        if is_same and (len(found.indices) == images or is_short):
            return found
        detail = f"{self._manifest_path} is of other images, size or seed: sampled again"
        self.tell(Event(stage="manifest", item=self.suite.name, state="note", detail=detail))
        return None

    def _given_graph(self, variant: Variant) -> Artefact:
        path = Path(self.suite.model.name.removeprefix(_ONNX))
        if not variant.is_identity:
            raise UnsupportedError(
                f"variant {variant.name!r} of {self.suite.model.name}",
                expected="the dense network as it is: a graph cannot be pruned or trained",
                cure="name the PyTorch architecture under model.name",
            )
        if not path.is_file():
            raise ConfigError(f"model {self.suite.model.name}", expected="an ONNX file", got="nothing there")
        from trtbench.graph.given import graph_sha256, import_onnx

        inputs = {"graph": graph_sha256(path), "input_shape": self.input_shape, "classes": self.dataset.num_classes}

        def take(folder: Path) -> Mapping[str, Any]:
            target = folder / "model.onnx"
            import_onnx(path, target, input_shape=self.input_shape, num_classes=self.dataset.num_classes)
            return {"notes": []}

        return self.make("graph", variant.name, inputs, take, content=("model.onnx",))


def _half_notes(half: HalfGraph, check: HalfCheck, *, dtype: str) -> list[str]:
    """Say which nodes stayed in FP32, and where rounding does not explain what the conversion changed."""
    notes = [f"{node} stays in FP32: {reason}" for node, reason in half.kept[:_SHOWN_NODES]]
    if len(half.kept) > _SHOWN_NODES:
        notes.append(f"{len(half.kept) - _SHOWN_NODES} more nodes stay in FP32")
    if not math.isfinite(check.error):
        notes.append(f"{dtype} overflows: its logits on the calibration images are not finite")
    elif not check.holds:
        notes.append(
            f"{dtype} moves a logit by {100 * check.error:.1f} % of the largest, "
            f"where rounding explains {100 * check.tolerance:.1f} %"
        )
    return notes
