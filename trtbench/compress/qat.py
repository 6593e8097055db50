"""The kind `qat`, INT8 aware training: a graph learns with the roundings of its own Q/DQ export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.compress.method import CompressedGraph, GraphContext
from trtbench.graph.network import GraphNetwork
from trtbench.graph.placement import plan_qdq
from trtbench.train.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from torch import nn

    from trtbench.compress.method import Tune
    from trtbench.graph.placement import QdqPlan
    from trtbench.suite import QatVariant


def learn(proto: onnx.ModelProto, _config: QatVariant, context: GraphContext) -> CompressedGraph:
    """Train a float graph under the roundings of the Q/DQ pairs that TensorRT's placement gives it."""
    plan = plan_qdq(proto, exclude=context.exclude)
    learnt = learn_int8(proto, plan, context.ranges, tune=context.tune, sparse_layers=context.sparse_layers)
    return CompressedGraph(proto=learnt, notes=(f"learnt in INT8: {plan.summary}",))


def learn_int8(
    proto: onnx.ModelProto,
    plan: QdqPlan,
    activation_amax: Mapping[str, float],
    *,
    tune: Tune,
    sparse_layers: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """Train a float graph under the roundings that `insert_qdq` will write into it.

    Jacob et al. (2018), section 3, with the activations' ranges calibrated before and kept, as NVIDIA's toolkit for
    quantization aware training does (Wu et al., "Integer Quantization for Deep Learning Inference", 2020, section 5.2);
    the scales of weights follow the weights.

    Args:
        proto: the float graph, BatchNorm folded; it is not changed.
        plan: where its Q/DQ pairs go.
        activation_amax: for each of `activation_tensors(plan)`.
        tune: trains the network.
        sparse_layers: those whose zero weights are held.

    Returns:
        The float graph with the weights learnt: quantized by the same plan and ranges it computes what was trained.

    Raises:
        UnsupportedError: the graph has an operator, or one with attributes, that cannot be trained here.
    """
    network = GraphNetwork(proto, plan, activation_amax)
    network.require_same()
    tune(network, hooks=held_zeros(network, sparse_layers) if sparse_layers else NO_HOOKS)
    return network.trained_graph()


def held_zeros(network: GraphNetwork, layers: tuple[str, ...]) -> Hooks:
    """Return hooks that keep the zero weights of these layers of a graph at zero."""
    weights = network.weights_of(layers)
    zeros = {name: weight.detach() == 0 for name, weight in weights.items()}

    def hold(_model: nn.Module, _step: int) -> None:
        for name, weight in network.weights_of(layers).items():
            zeros[name] = zeros[name].to(weight.device)
            weight.data.masked_fill_(zeros[name], 0.0)

    return Hooks(key=f"zeros of the graph held in {sorted(weights)}", after_step=hold)
