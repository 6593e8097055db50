"""The networks of a suite: the dense one, trained or given, and its compressed variants."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench import __version__
from trtbench._optional import version
from trtbench.errors import ConfigError
from trtbench.pipeline.events import Event
from trtbench.pipeline.keeper import Keeper
from trtbench.records import sha256_of, to_jsonable
from trtbench.store import file_sha256
from trtbench.suite import ChannelsVariant, DenseVariant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from trtbench.records import Dataset
    from trtbench.store import Artefact
    from trtbench.suite import TrainConfig, Variant

_TAYLOR_BATCHES, _TAYLOR_BATCH = 10, 64


class Networks(Keeper):
    """The PyTorch networks of one suite."""

    def dense(self) -> Artefact:
        """The dense network: trained here, or a checkpoint brought into our form."""
        model = self.suite.model
        inputs: dict[str, Any] = {
            "model": model.name,
            "source": source_of(model.name),
            "classes": self.dataset.classes,
            "input_shape": self.input_shape,
            "torch": version("torch"),
        }
        if model.checkpoint is not None:
            if not model.checkpoint.is_file():
                raise ConfigError(f"checkpoint {model.checkpoint}", expected="a file", cure="mend model.checkpoint")
            inputs |= {"checkpoint": file_sha256(model.checkpoint)}
            return self.make("dense", "dense", inputs, self._take_checkpoint)
        assert model.train is not None, "the suite has a checkpoint or a training budget"
        inputs |= self._training_inputs(model.train)
        return self.make("dense", "dense", inputs, functools.partial(self._train_dense, model.train))

    def variant(self, variant: Variant) -> Artefact:
        """One compressed network, fine-tuned where the suite says so."""
        dense = self.dense()
        if isinstance(variant, DenseVariant) and not variant.fine_tune:
            return dense
        inputs: dict[str, Any] = {
            "dense": dense.sha256,
            "source": source_of(self.suite.model.name),
            "variant": variant.model_dump(mode="json", exclude={"name"}),
            "input_shape": self.input_shape,
        }
        if isinstance(variant, ChannelsVariant):
            inputs |= {"round_to": self._round_to(variant), "torch-pruning": version("torch-pruning")}
            if variant.importance == "taylor":
                inputs |= {"images": self.dataset.train.sha256, "fit": self.dataset.preprocessing.fingerprint}
        if variant.fine_tune:
            inputs |= self._training_inputs(self.suite.fine_tune)
        return self.make(
            "variant", variant.name, inputs, functools.partial(self._compress, variant, dense.path("model.safetensors"))
        )

    def network(self, artefact: Artefact) -> Any:
        """Load the PyTorch network of a `dense` or `variant` artefact, in eval mode on the CPU."""
        from trtbench.models import load_model

        return load_model(
            self.suite.model.name,
            num_classes=self.dataset.num_classes,
            checkpoint=artefact.path("model.safetensors"),
        ).model

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
                input_shape=self.input_shape,
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
            "macs": count_macs(network, self.input_shape),
            "widths": conv_widths(network),
        }


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


def source_of(model: str) -> str | None:
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
