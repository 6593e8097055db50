"""Each artefact of a suite by name: made once, kept in the store, keyed by what it is made from."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench import __version__
from trtbench._optional import version
from trtbench.calibrate.leaks import check_leak
from trtbench.calibrate.manifest import load_manifest, make_manifest, save_manifest, verify_manifest
from trtbench.errors import ConfigError, GraphError, RowError, UnsupportedError
from trtbench.pipeline.events import Event, Listener, nobody
from trtbench.records import sha256_of, to_jsonable
from trtbench.store import Artefact, Store, file_sha256, write_atomically
from trtbench.suite import ChannelsVariant, DenseVariant, Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from trtbench.calibrate.manifest import CalibrationManifest
    from trtbench.graph.placement import Runtime
    from trtbench.records import Dataset
    from trtbench.suite import TrainConfig, Variant

_ONNX = "onnx:"
_DEFAULT_PER_CLASS = 50  # source study 001: 500 images of CIFAR-10
_TAYLOR_BATCHES, _TAYLOR_BATCH = 10, 64
# precision -> whose kernels its Q/DQ nodes are placed for
_PLACEMENTS: Mapping[str, Runtime] = {"int8": "tensorrt", "int8-ort": "onnxruntime-cpu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things stand: runs and the store below them, engines, committed manifests."""

    runs: Path = Path("runs")
    engines: Path = Path("engines")
    calib: Path = Path("calib")

    @property
    def store(self) -> Path:
        """The folder of the content-keyed store."""
        return self.runs / ".store"


def labelled_batches(dataset: Dataset) -> list[tuple[Tensor, Tensor]]:
    """Return the first training images, normalised, with their labels, for importances that need gradients."""
    import torch

    from trtbench.data import normalise

    train = dataset.train
    return [
        (
            torch.from_numpy(normalise(train.images[start : start + _TAYLOR_BATCH], dataset.preprocessing)),
            torch.from_numpy(train.labels[start : start + _TAYLOR_BATCH]),
        )
        for start in range(0, min(len(train), _TAYLOR_BATCHES * _TAYLOR_BATCH), _TAYLOR_BATCH)
    ]


def _source_of(model: str) -> str | None:
    """Return what stands for the source of a network that is not ours: its package's version, its module's hash."""
    package, _, name = model.partition(":")
    if not name:
        return __version__
    if package in {"torchvision", "timm"}:
        return version(package)
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return file_sha256(Path(spec.origin))
    return None


class Absent(Exception):  # noqa: N818  it is no error: it says that something is still to be made
    """An artefact is not there yet, and this look-up makes none."""


class Artefacts:
    """The artefacts of one suite.

    Args:
        suite: the validated suite.
        places: folders.
        tell: told what is made, reused, or rebuilt and why.
        is_dry: look up only; what is not there raises Absent.
    """

    def __init__(self, suite: Suite, places: Places, *, tell: Listener = nobody, is_dry: bool = False) -> None:
        self.suite = suite
        self.places = places
        self.store = Store(places.store)
        self.tell = tell
        self._is_dry = is_dry
        self._at_hand: dict[str, Artefact] = {}
        self._failed: dict[str, RowError] = {}

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The images of the suite, loaded once."""
        from trtbench.data import load_dataset

        self.tell(Event(stage="data", item=self.suite.data.source, state="started"))
        dataset = load_dataset(self.suite.data)
        counts = f"{len(dataset.train)} train, {len(dataset.validation)} validation, {len(dataset.test)} test"
        self.tell(Event(stage="data", item=dataset.name, state="done", detail=counts))
        return dataset

    @functools.cached_property
    def device(self) -> str:
        """Where training and eager run."""
        import torch

        return "cuda:0" if torch.cuda.is_available() else "cpu"

    @property
    def is_onnx(self) -> bool:
        """Whether the network comes as ONNX, without its PyTorch source."""
        return self.suite.model.name.startswith(_ONNX)

    def dense(self) -> Artefact:
        """The dense network: trained here, or a checkpoint brought into our form."""
        model = self.suite.model
        inputs: dict[str, Any] = {
            "model": model.name,
            "source": _source_of(model.name),
            "classes": self.dataset.classes,
            "input_shape": self._input_shape,
            "torch": version("torch"),
        }
        if model.checkpoint is not None:
            if not model.checkpoint.is_file():
                raise ConfigError(f"checkpoint {model.checkpoint}", expected="a file", cure="mend model.checkpoint")
            inputs |= {"checkpoint": file_sha256(model.checkpoint)}
            return self._make("dense", "dense", inputs, self._take_checkpoint)
        assert model.train is not None, "the suite has a checkpoint or a training budget"
        inputs |= self._training_inputs(model.train)
        return self._make("dense", "dense", inputs, functools.partial(self._train_dense, model.train))

    def variant(self, variant: Variant) -> Artefact:
        """One compressed network, fine-tuned where the suite says so."""
        dense = self.dense()
        if isinstance(variant, DenseVariant) and not variant.fine_tune:
            return dense
        inputs: dict[str, Any] = {
            "dense": dense.sha256,
            "source": _source_of(self.suite.model.name),
            "variant": variant.model_dump(mode="json", exclude={"name"}),
            "input_shape": self._input_shape,
        }
        if isinstance(variant, ChannelsVariant):
            inputs |= {"round_to": self._round_to(variant), "torch-pruning": version("torch-pruning")}
            if variant.importance == "taylor":
                inputs |= {"images": self.dataset.train.sha256, "fit": self.dataset.preprocessing.fingerprint}
        if variant.fine_tune:
            inputs |= self._training_inputs(self.suite.fine_tune)
        return self._make(
            "variant", variant.name, inputs, functools.partial(self._compress, variant, dense.path("model.safetensors"))
        )

    def graph(self, variant: Variant) -> Artefact:
        """The float ONNX graph of a variant."""
        if self.is_onnx:
            return self._given_graph(variant)
        network = self.variant(variant)
        config = self.suite.export
        inputs = {
            "network": network.sha256,
            "source": _source_of(self.suite.model.name),
            "export": config.model_dump(mode="json"),
            "input_shape": self._input_shape,
            "torch": version("torch"),
            "onnx": version("onnx"),
            "trtbench": __version__,
        }

        def export(folder: Path) -> Mapping[str, Any]:
            from trtbench.graph.export import export_onnx

            record = export_onnx(
                self.network(network), folder / "model.onnx", input_shape=self._input_shape, config=config
            )
            facts = {name: value for name, value in to_jsonable(record).items() if name != "path"}
            return {"graph": facts, **network.facts}

        return self._make("graph", variant.name, inputs, export, content=("model.onnx",))

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
        }
        sampled = self.store.find("manifest", inputs)
        if committed is not None and (sampled is None or sampled.facts["sha256"] != committed.sha256):
            inputs["committed"] = committed.sha256

        def sample(folder: Path) -> Mapping[str, Any]:
            if committed is not None:
                verify_manifest(committed, self.dataset)
                check_leak(self.dataset, committed.indices)
            manifest = committed or make_manifest(self.dataset, **sizes, seed=config.seed)
            save_manifest(folder / "manifest.json", manifest)
            return {"images": len(manifest.images), "sha256": manifest.sha256}

        made = self._make("manifest", self.suite.name, inputs, sample, content=("manifest.json",))
        if committed is None and not self._is_dry:
            write_atomically(self._manifest_path, made.path("manifest.json").read_bytes())
        return made

    def ranges(self, variant: Variant) -> Artefact:
        """The clip threshold of every activation that a placement may quantize, by the suite's method."""
        graph, manifest, config = self.graph(variant), self.manifest, self.suite.calibration
        inputs = {
            "graph": graph.sha256,
            "manifest": manifest.facts["sha256"],
            "method": config.method,
            "percentile": config.percentile if config.method == "percentile" else None,
            "batch_size": config.batch_size,
            "onnxruntime": version("onnxruntime-gpu") or version("onnxruntime"),
            "numpy": version("numpy"),
            "trtbench": __version__,
        }

        def collect(folder: Path) -> Mapping[str, Any]:
            import onnx

            from trtbench.calibrate.ranges import collect_ranges
            from trtbench.engines.onnxruntime import iterate_activations
            from trtbench.graph.placement import activation_tensors, plan_qdq

            path = graph.path("model.onnx")
            plans = [plan_qdq(onnx.load(path), runtime=runtime) for runtime in _PLACEMENTS.values()]
            tensors = tuple(dict.fromkeys(tensor for plan in plans for tensor in activation_tensors(plan)))
            images = self.calibration_batches(load_manifest(manifest.path("manifest.json")))
            amax = collect_ranges(
                iterate_activations(path, tensors, images), method=config.method, percentile=config.percentile
            )
            write_atomically(folder / "ranges.json", json.dumps(amax, indent=1, sort_keys=True))
            return {"tensors": len(amax)}

        return self._make("ranges", variant.name, inputs, collect, content=("ranges.json",))

    def quantized_graph(self, variant: Variant, *, precision: str = "int8") -> Artefact:
        """The ONNX graph of a variant with Q/DQ nodes: where TensorRT wants them, or where ONNX Runtime's CPU does."""
        graph, ranges = self.graph(variant), self.ranges(variant)
        runtime = _PLACEMENTS[precision]
        inputs = {
            "graph": graph.sha256,
            "ranges": ranges.sha256,
            "runtime": runtime,
            "onnx": version("onnx"),
            "trtbench": __version__,
        }

        def insert(folder: Path) -> Mapping[str, Any]:
            import onnx

            from trtbench.graph.lint import lint
            from trtbench.graph.placement import plan_qdq
            from trtbench.graph.qdq import insert_qdq

            proto = onnx.load(graph.path("model.onnx"))
            amax = json.loads(ranges.path("ranges.json").read_bytes())
            plan = plan_qdq(proto, runtime=runtime)
            quantized = insert_qdq(proto, plan, amax)
            if runtime == "tensorrt" and (findings := lint(quantized)):
                raise GraphError(
                    f"Q/DQ graph of {variant.name}",
                    got="; ".join(f"{found.node}: {found.message} ({found.rule})" for found in findings[:10]),
                    cure="exclude the layer, or export the model another way",
                )
            write_atomically(folder / "model.onnx", quantized.SerializeToString(deterministic=True))
            return {"placement": plan.summary}

        return self._make("qdq", f"{variant.name}/{precision}", inputs, insert, content=("model.onnx",))

    def test_images(self) -> Path:
        """The test split's uint8 pixels as .npy, for worker processes to map."""

        def save(folder: Path) -> Mapping[str, Any]:
            with (folder / "test.npy").open("wb") as file:
                np.save(file, self.dataset.test.images)
            return {}

        inputs = {"test": self.dataset.test.sha256}
        return self._make("images", self.dataset.name, inputs, save, content=("test.npy",)).path("test.npy")

    def network(self, artefact: Artefact) -> Any:
        """Load the PyTorch network of a `dense` or `variant` artefact, in eval mode on the CPU."""
        from trtbench.models import load_model

        return load_model(
            self.suite.model.name,
            num_classes=self.dataset.num_classes,
            checkpoint=artefact.path("model.safetensors"),
        ).model

    def calibration_batches(self, manifest: CalibrationManifest) -> Iterator[NDArray[np.float32]]:
        """Yield the manifest's images, normalised, in batches; only one batch is in memory at a time."""
        from trtbench.data import normalise

        size = self.suite.calibration.batch_size
        for start in range(0, len(manifest.indices), size):
            wanted = np.asarray(manifest.indices[start : start + size])
            yield normalise(self.dataset.train.images[wanted], self.dataset.preprocessing)

    @property
    def _input_shape(self) -> tuple[int, int, int]:
        return self.dataset.preprocessing.input_shape

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
        is_same = (found.train_sha256, found.preprocessing) == wanted
        if is_same and len(found.indices) == images and found.seed == seed:
            return found
        detail = f"{self._manifest_path} is of other images, size or seed: sampled again"
        self.tell(Event(stage="manifest", item=self.suite.name, state="note", detail=detail))
        return None

    def _make(
        self,
        kind: str,
        item: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any]],
        *,
        content: tuple[str, ...] = ("model.safetensors",),
    ) -> Artefact:
        """Find or make an artefact and tell which it was; a stale one is named with what changed."""
        key = self.store.key(kind, inputs)
        if key in self._failed:
            raise self._failed[key]  # once is enough: every engine that needs it fails for the same reason
        if key not in self._at_hand:
            try:
                self._at_hand[key] = self._found_or_made(kind, item, inputs, maker, content=content)
            except RowError as error:
                self._failed[key] = error
                raise
        return self._at_hand[key]

    def _found_or_made(
        self,
        kind: str,
        item: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Mapping[str, Any]],
        *,
        content: tuple[str, ...],
    ) -> Artefact:
        found = self.store.find(kind, inputs)
        if found is not None and self._is_dry:
            return found
        if found is not None:
            self.store.use(found)
            self.tell(Event(stage=kind, item=item, state="cached", seconds=found.seconds))
            return found
        if self._is_dry:
            raise Absent(kind)
        label = f"{self.suite.name}/{item}"
        if changed := self.store.changed_inputs(kind, inputs, label=label):
            detail = f"made again: {', '.join(changed)} changed"
            self.tell(Event(stage=kind, item=item, state="note", detail=detail))
        self.tell(Event(stage=kind, item=item, state="started"))
        made = self.store.make(kind, inputs, maker, content=content, label=label)
        self.tell(Event(stage=kind, item=item, state="done", seconds=made.seconds))
        return made

    def _given_graph(self, variant: Variant) -> Artefact:
        path = Path(self.suite.model.name.removeprefix(_ONNX))
        if not isinstance(variant, DenseVariant) or variant.fine_tune:
            raise UnsupportedError(
                f"variant {variant.name!r} of {self.suite.model.name}",
                expected="the dense network as it is: a graph cannot be pruned or trained",
                cure="name the PyTorch architecture under model.name",
            )
        if not path.is_file():
            raise ConfigError(f"model {self.suite.model.name}", expected="an ONNX file", got="nothing there")
        from trtbench.graph.given import graph_sha256, import_onnx

        inputs = {"graph": graph_sha256(path), "input_shape": self._input_shape, "classes": self.dataset.num_classes}

        def take(folder: Path) -> Mapping[str, Any]:
            target = folder / "model.onnx"
            import_onnx(path, target, input_shape=self._input_shape, num_classes=self.dataset.num_classes)
            return {"notes": []}

        return self._make("graph", variant.name, inputs, take, content=("model.onnx",))

    def _round_to(self, variant: ChannelsVariant) -> int:
        return variant.round_to or (16 if self.suite.builds_int8 else 8)

    def _training_inputs(self, config: TrainConfig) -> dict[str, Any]:
        return {
            "train": config.model_dump(mode="json"),
            "images": sha256_of([self.dataset.train.sha256, self.dataset.validation.sha256]),
            "preprocessing": self.dataset.preprocessing.fingerprint,
            "device": self.device.split(":")[0],
        }

    def _take_checkpoint(self, folder: Path) -> Mapping[str, Any]:
        from trtbench.models import load_model

        model = self.suite.model
        loaded = load_model(
            model.name,
            num_classes=self.dataset.num_classes,
            checkpoint=model.checkpoint,
        )
        return {**self._save(loaded.model, folder), "notes": list(loaded.notes)}

    def _train_dense(self, config: TrainConfig, folder: Path) -> Mapping[str, Any]:
        import torch

        from trtbench.models import build_model

        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = build_model(self.suite.model.name, num_classes=self.dataset.num_classes)
        facts = self._fit(network, config, folder, item="dense")
        return {**self._save(network, folder), **facts}

    def _compress(self, variant: Variant, dense: Path, folder: Path) -> Mapping[str, Any]:
        from trtbench.models import load_model

        network = load_model(
            self.suite.model.name,
            num_classes=self.dataset.num_classes,
            checkpoint=dense,
        ).model
        facts: dict[str, Any] = {"notes": []}
        teacher = network
        if isinstance(variant, ChannelsVariant):
            from trtbench.compress.channels import prune_channels

            pruned = prune_channels(
                network,
                variant,
                input_shape=self._input_shape,
                round_to=self._round_to(variant),
                batches=labelled_batches(self.dataset) if variant.importance == "taylor" else None,
            )
            network = pruned.model
            facts = {"prune": to_jsonable(pruned.record), "notes": list(pruned.record.notes)}
        if variant.fine_tune:
            config = self.suite.fine_tune
            tuned = self._fit(network, config, folder, item=variant.name, teacher=teacher if config.distill else None)
            facts = {**facts, **tuned, "notes": [*facts["notes"], *tuned["notes"]]}
        return {**self._save(network, folder), **facts}

    def _fit(
        self, network: Any, config: TrainConfig, folder: Path, *, item: str, teacher: Any = None
    ) -> dict[str, Any]:
        from trtbench.train import fit

        def tell(epoch: Any) -> None:
            share = epoch.epoch / config.epochs
            detail = (
                f"epoch {epoch.epoch}/{config.epochs}, validation {100 * epoch.val_correct / epoch.val_total:.1f} %"
            )
            self.tell(Event(stage="train", item=item, state="progress", detail=detail, share=share))

        record = fit(network, self.dataset, config, folder=folder, teacher=teacher, device=self.device, on_epoch=tell)
        network.to("cpu")
        (folder / "epoch.pt").unlink(missing_ok=True)  # what resuming needs is not needed any more
        return {"fit": to_jsonable(record), "notes": list(record.notes)}

    def _save(self, network: Any, folder: Path) -> dict[str, Any]:
        from trtbench.models import conv_widths, count_macs, count_params, save_model

        save_model(
            folder / "model.safetensors",
            network,
            name=self.suite.model.name,
            num_classes=self.dataset.num_classes,
            metadata={"preprocessing": self.dataset.preprocessing.fingerprint},
        )
        return {
            "params": count_params(network),
            "macs": count_macs(network, self._input_shape),
            "widths": conv_widths(network),
        }
