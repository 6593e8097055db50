"""The networks of a suite: the dense one, trained or given, and its compressed variants."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of facts at run time
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from trtbench.errors import RowError, UnsupportedError
from trtbench.jsonable import canonical_json, to_jsonable
from trtbench.make.makings import keeping
from trtbench.make.recipe import Aside, Facts, Given, Ingredient, recipe
from trtbench.make.trial import trial
from trtbench.progress import Event
from trtbench.records import PACKED_VERSION
from trtbench.suite import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from trtbench.compress.method import Compressed, Tune
    from trtbench.make.makings import Architecture, Makings
    from trtbench.records import Dataset, Preprocessing
    from trtbench.store import Artefact
    from trtbench.suite import Suite, Variant
    from trtbench.train import EpochRecord, FitRecord, Hooks

    OnEpoch = Callable[[EpochRecord], None]

WEIGHTS = "model.safetensors"
PACKED = "model.tbz"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitFacts(Facts):
    """How a training ended; history.json and train.log beside the network tell every epoch."""

    epochs: int
    best_epoch: int
    val_correct: int
    val_total: int
    seconds: float
    notes: tuple[str, ...]
    resumed_from: int | None = None

    @classmethod
    def of(cls, record: FitRecord) -> FitFacts:
        """Return what of a fit is kept beside its network."""
        return cls(**{one.name: getattr(record, one.name) for one in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts(Facts):
    """What a network counts: parameters, MACs of one image, the share of zero weights, output channels by convolution.

    `method` is what its compression notes of itself; `fit` tells of the training, where there was one.
    """

    params: int
    macs: int
    sparsity: float
    widths: Mapping[str, int]
    notes: tuple[str, ...] = ()
    fit: FitFacts | None = None
    method: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """All that decides a training beside the network: of `dataset` the test split is empty."""

    circumstances: ClassVar = ("device", "threads")

    dataset: Dataset
    config: TrainConfig
    teacher: Ingredient | None
    device: str
    threads: int

    def tuner(self, folder: Path, fits: list[FitRecord], *, architecture: Architecture, on_epoch: OnEpoch) -> Tune:
        """Return what trains a network, with its log in `folder`; the record of the training is added to `fits`."""
        from trtbench.train import fit
        from trtbench.train.hooks import NO_HOOKS

        def tune(network: Any, *, hooks: Hooks = NO_HOOKS, config: TrainConfig | None = None) -> FitRecord:
            teacher = None if self.teacher is None else architecture.load(self.teacher.path(WEIGHTS)).model
            with on_threads(self.threads):
                record = fit(
                    network,
                    self.dataset,
                    config or self.config,
                    folder=folder,
                    teacher=teacher,
                    hooks=hooks,
                    device=self.device,
                    on_epoch=on_epoch,
                )
            network.to("cpu")
            (folder / "epoch.pt").unlink(missing_ok=True)  # what resuming needs is not needed any more
            fits.append(record)
            return record

        return tune


@recipe(kind="dense", facts=NetworkFacts, content=(WEIGHTS,), packages=("torch",), version=4)
def taken(
    folder: Path,
    *,
    architecture: Architecture,
    checkpoint: Given[Path],
    is_dense: bool,
    weights_from: str | None,
    preprocessing: Preprocessing,
) -> NetworkFacts:
    """Bring a checkpoint into our form; of a dense one every weight may learn."""
    loaded = architecture.load(checkpoint.value, is_dense=is_dense, weights_from=weights_from)
    return _saved(loaded.model, folder, architecture, preprocessing, notes=loaded.notes)


@recipe(kind="dense", facts=NetworkFacts, content=(WEIGHTS,), packages=("torch",), version=3)
def trained(folder: Path, *, architecture: Architecture, training: Training, on_epoch: Aside[OnEpoch]) -> NetworkFacts:
    """Train a network from the weights that the seed gives."""
    network = architecture.fresh(seed=training.config.seed)
    fits: list[FitRecord] = []
    training.tuner(folder, fits, architecture=architecture, on_epoch=on_epoch.value)(network)
    return _saved(network, folder, architecture, training.dataset.preprocessing, fits=fits)


@recipe(kind="dense", facts=NetworkFacts, content=(WEIGHTS,), packages=("torch",), version=3)
def untrained(folder: Path, *, architecture: Architecture, seed: int, preprocessing: Preprocessing) -> NetworkFacts:
    """Take the weights that a seed gives, where there are no images to train on."""
    return _saved(architecture.fresh(seed=seed), folder, architecture, preprocessing)


@recipe(kind="variant", facts=NetworkFacts, content=(WEIGHTS,), packages=("torch",), version=5)
def compressed(
    folder: Path,
    *,
    start: Ingredient,
    variant: Variant,
    architecture: Architecture,
    training: Training,
    packed_as: int,  # noqa: ARG001  of a file in an earlier format nothing is taken
    on_epoch: Aside[OnEpoch],
    tell: Aside[Callable[[str], None]],
) -> NetworkFacts:
    """Compress a network by the method of a variant, and train it as the variant asks."""
    from trtbench.compress.method import Context, method_of
    from trtbench.compress.sparsity import write_sparsity
    from trtbench.models.container import save_packed

    fits: list[FitRecord] = []
    tune = training.tuner(folder, fits, architecture=architecture, on_epoch=on_epoch.value)
    context = Context(
        dataset=training.dataset,
        budget=training.config,
        tune=tune,
        device=training.device,
        tell=tell.value,
    )
    with on_threads(training.threads):
        made: Compressed = method_of(variant)(architecture.load(start.path(WEIGHTS)).model, variant, context)
    if variant.fine_tune and not made.is_tuned:
        tune(made.model)
    fit = training.dataset.preprocessing
    notes = (*made.notes, *_of_its_own(variant, training))
    facts = _saved(made.model, folder, architecture, fit, notes=notes, fits=fits, method=made.facts)
    if made.packed is not None and (made.is_tuned or not variant.fine_tune):
        known = {"name": architecture.name, "num_classes": architecture.num_classes, "preprocessing": fit.fingerprint}
        save_packed(folder / PACKED, made.packed(known))
    if made.check is not None:
        saved = architecture.load(folder / WEIGHTS).model
        made.check(saved, after="the saved file was read again")
        write_sparsity(saved, folder / "layers")
    return facts


def _of_its_own(variant: Variant, training: Training) -> tuple[str, ...]:
    """Tell of a training budget that is not the suite's, so that rows are not compared as if it were."""
    if variant.budget is None:
        return ()
    budget, images = training.config, len(training.dataset.train)
    return (f"a budget of its own: {budget.epochs} epochs of {images} images, learning rate {budget.lr:g}",)


def dense(makings: Makings) -> Artefact[NetworkFacts]:
    """Return the dense network: trained here, or a checkpoint brought into our form."""
    model, architecture, fit = makings.suite.model, makings.architecture, makings.dataset.preprocessing
    if model.checkpoint is None:
        assert model.train is not None, "the suite has a checkpoint or a training budget"
        if not (model.train.epochs or len(makings.dataset.train)):
            seed = model.train.seed
            return makings.book.make(untrained, "dense", architecture=architecture, seed=seed, preprocessing=fit)
        trial(makings)
        training = training_of(makings, model.train, teacher=None)
        on_epoch = epoch_listener(makings, model.train, item="dense")
        return makings.book.make(trained, "dense", architecture=architecture, training=training, on_epoch=on_epoch)
    checkpoint = makings.checkpoint
    assert checkpoint is not None, "as above"
    return makings.book.make(
        taken,
        "dense",
        architecture=architecture,
        checkpoint=checkpoint,
        is_dense=model.dense,
        weights_from=model.weights_from,
        preprocessing=fit,
    )


def variant_network(makings: Makings, variant: Variant) -> Artefact[NetworkFacts]:
    """Return the network of a variant, made from the one it comes after; of a kind that makes graphs, that one."""
    suite = makings.suite
    if (why := makings.brought.get("lost", {}).get(variant.name)) is not None:
        raise RowError(f"variant {variant.name!r}", got=f"none, where the job was made: {why}")
    start = dense(makings) if variant.after is None else variant_network(makings, _before(suite, variant))
    if variant.makes == "graph" or variant.is_identity:
        return start
    settled = variant.settled(builds_int8=suite.builds_int8)
    training = training_for(makings, settled)

    def tell(words: str) -> None:
        makings.tell(Event(stage="variant", item=variant.name, state="progress", detail=words))

    return makings.book.make(
        compressed,
        variant.name,
        start=start,
        variant=settled,
        architecture=makings.architecture,
        training=training,
        packed_as=PACKED_VERSION,
        on_epoch=epoch_listener(makings, training.config, item=variant.name),
        tell=Aside(tell),
    )


def load_network(makings: Makings, artefact: Artefact[NetworkFacts]) -> Any:
    """Return the PyTorch network of an artefact, in eval mode on the CPU."""
    return makings.architecture.load(artefact.path(WEIGHTS)).model


def training_of(makings: Makings, budget: TrainConfig, *, teacher: Ingredient | None) -> Training:
    """Return what decides a training by this budget here."""
    return Training(
        dataset=keeping(makings.dataset, "train", "validation"),
        config=budget,
        teacher=teacher,
        device=makings.computing.device,
        threads=makings.computing.threads,
    )


def training_for(makings: Makings, variant: Variant) -> Training:
    """Return what of the images, the budget and the machine decides a settled variant: as good as nothing of many."""
    budget = makings.suite.budget_of(variant) if variant.fine_tune else TrainConfig(epochs=0)
    training = training_of(makings, budget, teacher=dense(makings) if budget.distill else None)
    if variant.fine_tune or variant.reads_images():
        return training
    return replace(training, dataset=keeping(makings.dataset), device="cpu", threads=1)


def epoch_listener(makings: Makings, budget: TrainConfig, *, item: str) -> Aside[OnEpoch]:
    """Return what passes on each epoch of a training, as `fit` takes it for `on_epoch`."""

    def follow(epoch: EpochRecord) -> None:
        done = f"epoch {epoch.epoch}/{budget.epochs}"
        detail = f"{done}, validation {100 * epoch.val_correct / epoch.val_total:.1f} %"
        share = epoch.epoch / budget.epochs
        makings.tell(Event(stage="train", item=item, state="progress", detail=detail, share=share))

    return Aside(follow)


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch compute on so many threads: sums of floats differ with their number, and with them what is learnt."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _before(suite: Suite, variant: Variant) -> Variant:
    start = suite.lineage(variant)[-2]
    if start.makes == "graph":
        raise UnsupportedError(
            f"variant {variant.name!r} after {start.name!r}",
            expected="a network to go on from",
            got=f"a graph, which is what {start.kind} makes",
            cure=f"let {start.name!r} come last",
        )
    return start


def _saved(
    network: Any,
    folder: Path,
    architecture: Architecture,
    preprocessing: Preprocessing,
    *,
    notes: tuple[str, ...] = (),
    fits: Sequence[FitRecord] = (),
    method: Mapping[str, Any] | None = None,
) -> NetworkFacts:
    from trtbench.compress.sparsity import sparsity_of
    from trtbench.models import conv_widths, count_macs, count_params, save_model

    save_model(
        folder / WEIGHTS,
        network,
        name=architecture.name,
        num_classes=architecture.num_classes,
        metadata={"preprocessing": preprocessing.fingerprint, "input": canonical_json(to_jsonable(preprocessing))},
    )
    return NetworkFacts(
        params=count_params(network),
        macs=count_macs(network, preprocessing.input_shape),
        sparsity=sparsity_of(network),
        widths=conv_widths(network),
        notes=(*notes, *(note for fit in fits for note in fit.notes)),
        fit=FitFacts.of(fits[-1]) if fits else None,
        method=method or {},
    )
