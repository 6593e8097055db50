"""What becomes of networks as others define them, with random weights: pruned, exported, built, and held to PyTorch.

    python -m tests.benchmarks.networks --out DIR --work DIR [NAME ...]

Each network is built by name at its smallest usual size; its BatchNorms take their statistics from digits and noise,
for those of a fresh network would let its signal die out. It goes its way as a suite's: dense and with 20 % of its
channels pruned, exported, calibrated, and built as FP32 and INT8 for ONNX Runtime. Its logits of `IMAGES` test images
are held to PyTorch's, and each node of the INT8 graph to onnx's reference evaluator, which shares no code with ONNX
Runtime. Both compute a node from the evaluator's inputs: a value between two codes falls to either side by the last bit
of a float, and random weights blow that up from layer to layer. A network that was measured already is left as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from trtbench.calibrate.exclusion import powers, signal_to_noise_db
from trtbench.data import load_dataset
from trtbench.data.preprocess import normalise
from trtbench.disk import write_atomically
from trtbench.errors import TrtbenchError
from trtbench.graph.reference import run_reference
from trtbench.make.engines import build_engine
from trtbench.make.graphs import GRAPH, float_graph, quantized_graph
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import WEIGHTS, variant_network
from trtbench.models import build_model, save_model
from trtbench.running.plan import plan_engines
from trtbench.suite import DataConfig, parse_suite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

NAME = "networks-random.json"
IMAGES = 2
_CLASSES = 10
_STATISTICS = 32  # digits that fresh BatchNorms see, and as many images of noise
_SUITE = """
name: {name}
data: {{source: digits, size: {size}}}
model: {{name: '{model}', checkpoint: '{checkpoint}'}}
variants: [{{kind: dense, name: dense}}, {{kind: channels, name: pruned, ratio: 0.2, fine_tune: false}}]
export: {{exporter: torchscript}}
calibration: {{per_class: 1, method: minmax}}
engines: [{{backend: onnxruntime-cpu, precisions: [fp32, int8]}}]
bench: {{baselines: [], batch_sizes: [1]}}
"""
# By their smallest usual size: 64 where any size goes, else the one that their tokens or poolings are made for.
ARCHITECTURES: Mapping[str, int] = {
    "torchvision:resnet18": 64,
    "torchvision:alexnet": 224,
    "torchvision:squeezenet1_1": 64,
    "torchvision:mobilenet_v2": 64,
    "torchvision:mobilenet_v3_small": 64,
    "torchvision:mnasnet1_0": 64,
    "torchvision:resnet50": 64,
    "torchvision:resnext50_32x4d": 64,
    "torchvision:regnet_x_400mf": 64,
    "torchvision:regnet_y_400mf": 64,
    "torchvision:shufflenet_v2_x1_0": 64,
    "torchvision:googlenet": 64,
    "torchvision:efficientnet_b0": 64,
    "torchvision:densenet121": 64,
    "torchvision:convnext_tiny": 64,
    "timm:lcnet_050": 64,
    "timm:tf_efficientnet_lite0": 64,
    "timm:repvgg_a0": 64,
    "timm:mobileone_s0": 64,
    "timm:resnetv2_50": 64,
    "timm:ghostnet_100": 64,
    "timm:tinynet_e": 64,
    "timm:fbnetc_100": 64,
    "timm:semnasnet_075": 64,
    "timm:rexnet_100": 64,
    "timm:mixnet_s": 64,
    "timm:seresnet50": 64,
    "timm:cspresnet50": 64,
    "timm:ese_vovnet19b_dw": 64,
    "timm:dla34": 64,
    "timm:hrnet_w18_small": 64,
    "timm:edgenext_xx_small": 64,
    "timm:poolformer_s12": 64,
    "timm:deit_tiny_patch16_224": 224,
    "timm:res2net50_26w_4s": 64,
    "torchvision:swin_t": 64,
}


def main() -> int:
    """Measure what was not, and write what came out after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("names", nargs="*", default=[*ARCHITECTURES])
    options = parser.parse_args()
    kept = options.out / NAME
    networks = {one["name"]: one for one in json.loads(kept.read_bytes())["networks"]} if kept.exists() else {}
    for name in options.names:
        if name in networks:
            continue
        networks[name] = measured(name, ARCHITECTURES[name], options.work)
        ordered = [networks[one] for one in ARCHITECTURES if one in networks]
        write_atomically(kept, json.dumps({"images": IMAGES, "networks": ordered}, indent=1) + "\n")
        sys.stderr.write(f"{json.dumps(networks[name])}\n")
    return 0


def measured(name: str, size: int, work: Path) -> dict[str, Any]:
    """Return how near each form of a network comes, by its variant, or why one is not whole."""
    since = time.process_time()
    safe = name.replace(":", "-")
    checkpoint = work / f"{safe}.safetensors"
    save_model(checkpoint, _network(name, size), name=name, num_classes=_CLASSES, metadata={})
    text = _SUITE.format(name=safe, size=size, model=name, checkpoint=checkpoint)
    makings = Makings(parse_suite(text, origin=name), Places(runs=work / "runs", engines=work / "engines"))
    found = {"name": name, "size": size}
    for variant in makings.suite.variants:
        try:
            for plan in plan_engines(makings.suite):  # without a rescue: what random weights lose is no fault
                if plan.variant is variant:
                    build_engine(makings, plan)
            found[variant.name] = _held(makings, variant)
        except TrtbenchError as error:
            found[variant.name] = {"reason": str(error)}
    return found | {"cpu_s": round(time.process_time() - since)}


def _network(name: str, size: int) -> torch.nn.Module:
    """Return the network of seed 0, its BatchNorms with the statistics of real images."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(name, num_classes=_CLASSES)
        images = np.concatenate([_images(size, _STATISTICS), torch.randn(_STATISTICS, 3, size, size).numpy()])
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the plain mean over all batches
        model.train()(torch.from_numpy(images))
    return model.eval()


def _images(size: int, count: int) -> NDArray[np.float32]:
    dataset = load_dataset(DataConfig(source="digits", size=size))
    return normalise(dataset.test.images[:count], dataset.preprocessing)


def _held(makings: Makings, variant: Any) -> dict[str, Any]:
    """Return the decibels of the FP32 graph to PyTorch, and of the INT8 graph to onnx's reference evaluator."""
    test, fit = makings.dataset.test, makings.dataset.preprocessing
    images = normalise(test.images[:IMAGES], fit)
    network = variant_network(makings, variant)
    with torch.inference_mode():
        wanted = makings.architecture.load(network.path(WEIGHTS)).model(torch.from_numpy(images)).numpy()
    exact = run_reference(onnx.load(float_graph(makings, variant).path(GRAPH)), {"input": images})["logits"]
    int8 = onnx.load(quantized_graph(makings, variant, runtime="onnxruntime-cpu").path(GRAPH))
    codes = run_reference(int8, {"input": images})["logits"]
    try:
        values = evaluated(int8, images)
    except Exception as error:  # noqa: BLE001  numpy's, of an operator that the evaluator gets wrong
        said = " ".join(str(error).split())
        return {"fp32_db": signal_to_noise_db(*powers(wanted, exact)), "reason": f"onnx's reference evaluator: {said}"}
    return {
        "params": network.facts.params,
        "macs": network.facts.macs,
        "fp32_db": signal_to_noise_db(*powers(wanted, exact)),
        "int8_db": least_db(int8, values),
        "int8_logits_db": signal_to_noise_db(*powers(values["logits"], codes)),
        "int8_to_fp32_db": signal_to_noise_db(*powers(exact, codes)),
        "notes": list(network.facts.notes),
    }


def evaluated(proto: onnx.ModelProto, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return what onnx's reference evaluator makes of each tensor of a graph, its input among them."""
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    known = {item.name for item in whole.graph.output}
    inner = [name for node in whole.graph.node for name in node.output if name and name not in known]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    names = [item.name for item in whole.graph.output]
    return dict(zip(names, ReferenceEvaluator(whole).run(names, {"input": images}), strict=True)) | {"input": images}


def least_db(proto: onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> float | None:
    """Return the least decibels of a node's output, each computed from the evaluator's values; None without noise."""
    apart = onnx.ModelProto()
    apart.CopyFrom(proto)
    given = {name for node in apart.graph.node for name in node.input if name in values}
    for node in apart.graph.node:
        node.output[:] = [f"{name}.own" if name else "" for name in node.output]
    del apart.graph.input[:], apart.graph.output[:], apart.graph.value_info[:]
    for name in sorted(given):
        kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
        apart.graph.input.append(helper.make_tensor_value_info(name, kind, values[name].shape))
    own = [name for node in apart.graph.node for name in node.output if name]
    apart.graph.output.extend(onnx.ValueInfoProto(name=name) for name in own)
    found = run_reference(apart, {name: values[name] for name in given})
    ratios = [
        signal_to_noise_db(*powers(values[name.removesuffix(".own")].astype(np.float32), value.astype(np.float32)))
        for name, value in found.items()
    ]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


if __name__ == "__main__":
    sys.exit(main())
