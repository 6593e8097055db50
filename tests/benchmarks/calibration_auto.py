"""What each way to calibrate costs pruned networks: images lost against FP32, and what `auto` takes.

    SHARED=DIR python -m tests.benchmarks.calibration_auto --out DIR --work DIR

Networks, seeds and budgets stand in SUITES. They were fixed beforehand, with these changes on the way: ResNet-18 and
MobileNet of CIFAR-10 were cut for time, and a third suite of akamaster's ResNet-20 took their place; ResNet-18 of
digits, whose first two networks had been scored and had not learnt (147 and 122 of 360 right), got another budget.
`--work` keeps the graph of each network, so that a second call goes on where the first one stopped. Every
INT8 graph is the one that ONNX Runtime's CPU kernels fuse, in exact arithmetic; images calibrate and judge as a suite's
do, and losses are of the test images. `rescue` has the signal-to-noise ratio below which graphs lost more than
LOST_PP, and what it would have been without each network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
import yaml

from tests.benchmarks.subjects import shared_folder
from trtbench.disk import write_atomically
from trtbench.graph.reference import exact_logits
from trtbench.make.gains import calibration_record
from trtbench.make.graphs import GRAPH, float_graph, quantized_graph
from trtbench.make.makings import Makings, Places
from trtbench.suite import CalibrationConfig, adhoc_suite, parse_suite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from trtbench.precision import Runtime
    from trtbench.suite import Suite

METHODS = get_args(CalibrationConfig.model_fields["method"].annotation)
LOST_PP = 100 * 3 / 360
_RUNTIME: Runtime = "onnxruntime-cpu"
_DIGITS = {"source": "digits"}
_CIFAR = {"source": "folder:${SHARED}/data/cifar10-lossless.tar.xz", "validation": 0.1}
_AKAMASTER = _CIFAR | {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_ONE_CYCLE = {"schedule": "one-cycle", "batch_size": 64}
_CROPPED = {"crop_padding": 2, "flip": False}


def _digits(model: str, seed: int, *, round_to: int, epochs: int = 8, lr: float = 0.1) -> dict[str, Any]:
    budget = {**_ONE_CYCLE, "augment": _CROPPED, "seed": seed}
    return {
        "name": f"digits-{model}-{seed}",
        "data": _DIGITS,
        "model": {"name": model, "train": {**budget, "epochs": epochs, "lr": lr}},
        "variants": _pruned(round_to),
        "fine_tune": {**budget, "epochs": 3, "lr": lr / 2, "batch_size": 32},
        "calibration": {"per_class": 20},
    }


def _akamaster(seed: int, *, round_to: int) -> dict[str, Any]:
    return {
        "name": f"cifar-akamaster-resnet20-{seed}",
        "data": _AKAMASTER,
        "model": {"name": "resnet20_a", "checkpoint": "${SHARED}/weights/akamaster-resnet20-12fca82f.th"},
        "variants": _pruned(round_to),
        "fine_tune": {**_ONE_CYCLE, "epochs": 2, "lr": 0.01, "seed": seed},
    }


def _pruned(round_to: int) -> list[dict[str, Any]]:
    return [
        {"kind": "channels", "name": f"channels-{100 * ratio:.0f}", "ratio": ratio, "round_to": round_to}
        for ratio in (0.25, 0.5)
    ]


# Three architectures on two data sets, ten suites of two pruned networks each.
SUITES = (
    *(_digits("resnet20", seed, round_to=round_to) for seed, round_to in ((0, 8), (1, 1), (2, 8))),
    _digits("resnet18", 0, round_to=8),
    *(_digits("resnet18", seed, round_to=round_to, epochs=4, lr=0.02) for seed, round_to in ((1, 1), (2, 8))),
    *(_akamaster(seed, round_to=round_to) for seed, round_to in ((0, 8), (1, 1), (2, 8))),
    _digits("mobilenet_v2_cifar", 0, round_to=8, epochs=4, lr=0.05),
)
# The network that the fault was found on; it is no part of the means.
KNOWN = {
    "name": "known",
    "data": _DIGITS,
    "model": {"name": "resnet20", "checkpoint": "${SHARED}/cases/checkpoints/digits-resnet20-channels50.safetensors"},
    "variants": [{"kind": "dense", "name": "digits-resnet20-channels50"}],
    "calibration": {"per_class": 20},
}


def main() -> int:
    """Make what is not there, score it, and write what came out after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    shared_folder()
    networks: list[dict[str, Any]] = []
    for raw in (*SUITES, KNOWN):
        for name, graph, suite in _graphs(raw, options.work):
            networks.append({"name": name, **_scored(graph, suite, options.work)})
            text = json.dumps({**summary(networks), "networks": networks}, indent=1) + "\n"
            write_atomically(options.out / "calibration-auto.json", text)
            sys.stderr.write(f"{name}: {json.dumps(networks[-1]['lost'])}\n")
    return 0


def _graphs(raw: Mapping[str, Any], work: Path) -> Iterator[tuple[str, Path, Suite]]:
    """Yield each pruned network of a suite as a graph that is kept."""
    text = os.path.expandvars(yaml.safe_dump({**raw, "export": {"exporter": "torchscript"}}))
    suite = parse_suite(text, origin=raw["name"])
    makings = Makings(suite, Places(runs=work / "runs", engines=work))
    for variant in suite.variants:
        name = f"{suite.name}-{variant.name}"
        kept = work / f"{name}.onnx"
        if not kept.exists():
            write_atomically(kept, float_graph(makings, variant).path(GRAPH).read_bytes())
        yield name, kept, suite


def _scored(graph: Path, suite: Suite, work: Path) -> dict[str, Any]:
    """Return what FP32 gets right, and what each method loses of it and seems to lose without labels."""
    reference = None
    lost, records = {}, {}
    for method in METHODS:
        calibration = suite.calibration.model_copy(update={"method": method})
        one = adhoc_suite(model={"name": f"onnx:{graph}"}, data=suite.data, calibration=calibration)
        makings = Makings(one, Places(runs=work / "runs", engines=work))
        variant = one.variants[0]
        if reference is None:
            reference = _correct(makings, float_graph(makings, variant).path(GRAPH))
        lost[method] = reference - _correct(makings, quantized_graph(makings, variant, runtime=_RUNTIME).path(GRAPH))
        found = calibration_record(makings, variant, runtime=_RUNTIME)
        records[method] = {"method": found.method, "snr_db": found.snr_db, "agreement": found.agreement}
        records[method] |= {"mse_tensors": found.mse_tensors} if method == "auto" else {}
    return {"images": len(makings.dataset.test), "fp32": reference, "lost": lost, "held_out": records}


def _correct(makings: Makings, graph: Path) -> int:
    test = makings.dataset.test
    logits = exact_logits(onnx.load(graph), test.images, makings.dataset.preprocessing, size=32)
    return int((logits.argmax(axis=1) == test.labels).sum())


def summary(networks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what each method loses in the mean and at worst, and where a rescue should be tried."""
    every = list(networks)
    unseen = [one for one in every if not one["name"].startswith("known")]
    lost_pp = {method: [100 * one["lost"][method] / one["images"] for one in unseen] for method in METHODS}
    return {
        "count": len(unseen),
        "mean_loss_pp": {method: float(np.mean(found)) for method, found in lost_pp.items() if found},
        "worst_loss_of_360": {method: 3.6 * max(found) for method, found in lost_pp.items() if found},
        "rescue": _rescue(every),
    }


def _rescue(networks: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Fit the ratio below which graphs lost too much; leave each network out once, and count what that misses."""
    points = {
        one["name"]: [
            (one["held_out"][method]["snr_db"], 100 * one["lost"][method] / one["images"] > LOST_PP)
            for method in METHODS
            if one["held_out"][method]["snr_db"] is not None
        ]
        for one in networks
    }
    missed = alarms = bad = good = 0
    for name, held in points.items():
        threshold = _threshold([point for other, found in points.items() if other != name for point in found])
        for snr_db, is_bad in held:
            bad, good = bad + is_bad, good + (not is_bad)
            missed += is_bad and snr_db >= threshold
            alarms += not is_bad and snr_db < threshold
    return {
        "snr_db": _threshold([point for found in points.values() for point in found]),
        "leave_one_out": {"lossy": bad, "missed": missed, "lossless": good, "alarms": alarms},
    }


def _threshold(points: list[tuple[float, bool]]) -> float:
    """Return the ratio that errs least, a lossy graph that is passed over being as bad as ten alarms."""
    edges = sorted({snr_db for snr_db, _ in points})
    candidates = [0.0, *(float(np.mean(pair)) for pair in itertools.pairwise(edges))]
    return min(
        candidates,
        key=lambda edge: sum(10 * (snr >= edge) if is_bad else snr < edge for snr, is_bad in points),
    )


if __name__ == "__main__":
    sys.exit(main())
