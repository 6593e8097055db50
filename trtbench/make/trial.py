"""What is tried before anything is made: one image through the network, and what torch computes on here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping  # noqa: TC003  a recipe's arguments are looked at at run time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.environment.gpus import find_driver_version
from trtbench.errors import ConfigError
from trtbench.make.recipe import Aside, Facts, Given, recipe

if TYPE_CHECKING:
    from trtbench.make.makings import Architecture, Makings

_DECIDING = ("CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_NUM_THREADS")  # what torch finds here, with the hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts(Facts):
    """What a network counts that took an image of this shape."""

    params: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputingFacts(Facts):
    """Where torch trains here, and on how many threads."""

    device: str
    threads: int


@recipe(kind="trial", facts=TrialFacts, content=(), packages=("torch",), version=2)
def one_image(
    folder: Path,  # noqa: ARG001  the facts are all there is
    *,
    architecture: Architecture,
    checkpoint: Given[Path] | None,
    weights_from: str | None,
    input_shape: tuple[int, int, int],
    export_line: Aside[Callable[[], str]],
) -> TrialFacts:
    """Run an image of zeros through a network with the weights it is to have, or with those of a seed.

    Raises:
        ConfigError: it gives no logits.
    """
    from trtbench.models.counts import count_params, evaluating, run_zeros

    if checkpoint is None:
        network = architecture.fresh(seed=0)
    else:
        network = architecture.load(checkpoint.value, weights_from=weights_from).model
    with evaluating(network):
        found = run_zeros(network, input_shape)
    shape = getattr(found, "shape", None)
    if shape != (1, architecture.num_classes):
        raise ConfigError(
            f"{architecture.name} with one image",
            expected=f"one tensor of logits, (1, {architecture.num_classes})",
            got=type(found).__name__ if shape is None else str(tuple(shape)),
            cure=f"as no classifier it goes as onnx:network.onnx, with images:PATH: {export_line.value()}",
        )
    return TrialFacts(params=count_params(network))


@recipe(kind="computing", facts=ComputingFacts, content=(), packages=("torch",), version=1)
def asked(
    folder: Path,  # noqa: ARG001  the facts are all there is
    *,
    host: Mapping[str, Any],  # noqa: ARG001  keyed
    torch: Aside[Callable[[], ComputingFacts]],
) -> ComputingFacts:
    """Keep what torch says of a host."""
    return torch.value()


def trial(makings: Makings) -> TrialFacts:
    """Return what there is to say of the suite's network once it took one image of the suite's size.

    Raises:
        ConfigError: it does not take such an image, or its checkpoint is not there.
        CheckpointError: the checkpoint does not fit.
    """
    return makings.book.sure(
        one_image,
        "dense",
        architecture=makings.architecture,
        checkpoint=makings.checkpoint,
        weights_from=makings.suite.model.weights_from,
        input_shape=makings.input_shape,
        export_line=Aside(lambda: makings.export_line(num_classes=makings.dataset.num_classes)),
    ).facts


def computing(makings: Makings) -> ComputingFacts:
    """Return what torch computes on here; where nothing is made, as it said before on the same host."""
    host = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "driver": find_driver_version(),
        "gpus": sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")),
        **{name: os.environ.get(name) for name in _DECIDING},
    }
    said = None if makings.book.is_dry else _ask_torch()
    kept = makings.book.sure(asked, "torch", host=host, torch=Aside(lambda: said or _ask_torch()))
    return said or kept.facts


def _ask_torch() -> ComputingFacts:
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    return ComputingFacts(device=device, threads=torch.get_num_threads())
