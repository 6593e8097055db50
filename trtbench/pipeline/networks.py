"""The networks of a suite: the dense one, trained or given, and its compressed variants."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench import __version__
from trtbench._optional import version
from trtbench.errors import ConfigError, UnsupportedError
from trtbench.jsonable import sha256_of, to_jsonable
from trtbench.pipeline.events import follow_training
from trtbench.pipeline.keeper import Keeper
from trtbench.pipeline.sparsify import write_sparsity
from trtbench.store import file_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.compress.methods import Tune
    from trtbench.store import Artefact
    from trtbench.suite import TrainConfig, Variant
    from trtbench.train import FitRecord


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
        """One compressed network, made from the variant it comes after, fine-tuned where the suite says so."""
        start = self.dense() if variant.after is None else self.variant(self._network_before(variant))
        if variant.makes == "graph" or variant.is_identity:
            return start
        settled = variant.settled(builds_int8=self.suite.builds_int8)
        inputs = {
            "start": start.sha256,
            "source": source_of(self.suite.model.name),
            "trtbench": __version__,
            "variant": settled.model_dump(mode="json", exclude={"name", "after"}),
            "input_shape": self.input_shape,
            **self._method_inputs(settled),
        }
        maker = functools.partial(self._compress, settled, start.path("model.safetensors"))
        return self.make("variant", variant.name, inputs, maker)

    def _network_before(self, variant: Variant) -> Variant:
        start = self.suite.lineage(variant)[-2]
        if start.makes == "graph":
            raise UnsupportedError(
                f"variant {variant.name!r} after {start.name!r}",
                expected="a network to go on from",
                got=f"a graph, which is what {start.kind} makes",
                cure=f"let {start.name!r} come last",
            )
        return start

    def network(self, artefact: Artefact) -> Any:
        """Load the PyTorch network of a `dense` or `variant` artefact, in eval mode on the CPU."""
        return self._load(artefact.path("model.safetensors"))

    def _load(self, path: Path) -> Any:
        from trtbench.models import load_model

        return load_model(self.suite.model.name, num_classes=self.dataset.num_classes, checkpoint=path).model

    def _method_inputs(self, variant: Variant) -> dict[str, Any]:
        """Return what decides a variant beside its own keys: packages, images, the budget, whether zeros are held."""
        inputs: dict[str, Any] = {package: version(package) for package in variant.packages}
        if variant.reads_images():
            inputs |= {"images": self.dataset.train.sha256, "fit": self.dataset.preprocessing.fingerprint}
        if variant.fine_tune:
            inputs |= self.learning_inputs()
        return {**inputs, "holds_zeros": self.is_sparse(variant)}

    def learning_inputs(self) -> dict[str, Any]:
        """Return what decides a fine-tuning beside the network."""
        teacher = self.dense().sha256 if self.suite.fine_tune.distill else None
        return {**self._training_inputs(self.suite.fine_tune), "teacher": teacher}

    def is_sparse(self, variant: Variant) -> bool:
        """Say whether a variant starts from one whose zeros are to stay."""
        return any(one.makes_zeros for one in self.suite.lineage(variant)[:-1])

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
        record = self._fit(network, config, folder, item="dense")
        return {**self._save(network, folder), "fit": to_jsonable(record), "notes": list(record.notes)}

    def _compress(self, variant: Variant, start: Path, folder: Path) -> Mapping[str, Any]:
        from trtbench.compress.methods import Context, compress

        fits: dict[str, Any] = {}
        tune = self.tuner(variant, folder, fits)
        context = Context(
            dataset=self.dataset,
            budget=self.suite.fine_tune,
            tune=tune,
            is_sparse=self.is_sparse(variant),
            device=self.device,
        )
        made = compress(self._load(start), variant, context)
        if variant.fine_tune and not made.is_tuned:
            tune(made.model, hooks=made.hooks)
        facts = self._save(made.model, folder)
        if made.check is not None:
            saved = self._load(folder / "model.safetensors")
            made.check(saved, after="the saved file was read again")
            write_sparsity(saved, folder / "layers")
        notes = [*made.notes, *fits.get("fit", {}).get("notes", ())]
        return {**made.facts, **fits, **facts, "notes": notes}

    def tuner(self, variant: Variant, folder: Path, fits: dict[str, Any]) -> Tune:
        """Return what trains a variant by the suite's budget; its record goes into `fits`."""
        from trtbench.train.hooks import NO_HOOKS

        def tune(network: Any, *, hooks: Any = NO_HOOKS, config: TrainConfig | None = None) -> Any:
            budget = config or self.suite.fine_tune
            teacher = self.network(self.dense()) if budget.distill else None
            record = self._fit(network, budget, folder, item=variant.name, teacher=teacher, hooks=hooks)
            fits["fit"] = to_jsonable(record)
            return record

        return tune

    def _fit(
        self,
        network: Any,
        config: TrainConfig,
        folder: Path,
        *,
        item: str,
        teacher: Any = None,
        hooks: Any = None,
    ) -> FitRecord:
        from trtbench.train import fit
        from trtbench.train.hooks import NO_HOOKS

        record = fit(
            network,
            self.dataset,
            config,
            folder=folder,
            teacher=teacher,
            hooks=hooks or NO_HOOKS,
            device=self.device,
            on_epoch=follow_training(self.tell, item=item, epochs=config.epochs),
        )
        network.to("cpu")
        (folder / "epoch.pt").unlink(missing_ok=True)  # what resuming needs is not needed any more
        return record

    def _save(self, network: Any, folder: Path) -> dict[str, Any]:
        from trtbench.compress.sparsity import sparsity_of
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
            "sparsity": sparsity_of(network),
            "widths": conv_widths(network),
        }


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
