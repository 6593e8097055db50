from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trtbench.graph.export import rename


def _model(
    nodes: list[onnx.NodeProto], **constants: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name.replace("__", "::")) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _scoped(node: onnx.NodeProto, scopes: list[str]) -> onnx.NodeProto:
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(scopes))
    return node


_BLOCK = "/layer1/layer1.0/layer1.0.2"
_FC = np.zeros((2, 48), np.float32)


def test_a_torchscript_graph_bears_module_paths() -> None:
    model = _model(
        [
            helper.make_node(
                "Conv", ["input", "onnx::Conv_9", "bias"], [f"{_BLOCK}/conv1/Conv_output_0"], name="node_Conv_3"
            ),
            helper.make_node("Relu", [f"{_BLOCK}/conv1/Conv_output_0"], [f"{_BLOCK}/Relu_output_0"]),
            helper.make_node("Relu", [f"{_BLOCK}/Relu_output_0"], [f"{_BLOCK}/Relu_1_output_0"]),
            helper.make_node("Concat", [f"{_BLOCK}/Relu_output_0", "pad", "pad"], ["/Concat_output_0"], axis=0),
            helper.make_node("Flatten", ["/Concat_output_0"], ["75"]),
            helper.make_node("Gemm", ["75", "fc", "bias"], ["logits"], name="/fc/Gemm", transB=1),
        ],
        onnx__Conv_9=np.zeros((3, 3, 1, 1), np.float32),
        bias=np.zeros(3, np.float32),
        pad=np.zeros((1, 3, 4, 4), np.float32),
        fc=_FC,
    )
    named = rename(model).graph
    assert [node.name for node in named.node] == [
        "layer1.0.2.conv1",
        "layer1.0.2.Relu",
        "layer1.0.2.Relu_1",
        "Concat",
        "Flatten",
        "fc",
    ]
    assert list(named.node[0].input) == ["input", "layer1.0.2.conv1.weight", "layer1.0.2.conv1.bias"]
    assert list(named.node[3].input) == ["layer1.0.2.Relu.out", "Concat.inputs1", "Concat.inputs1"]
    assert list(named.node[5].input) == ["Flatten.out", "fc.weight", "layer1.0.2.conv1.bias"]
    assert named.node[5].output == ["logits"]
    stored = {item.name for item in named.initializer}
    assert stored == {"layer1.0.2.conv1.weight", "layer1.0.2.conv1.bias", "Concat.inputs1", "fc.weight"}


def test_a_dynamo_graph_bears_the_same_names() -> None:
    model = _model(
        [
            _scoped(
                helper.make_node("Conv", ["input", "layer1.0.conv1.weight"], ["getitem_3"], name="node_Conv_209"),
                ["", "layer1", "layer1.0", "layer1.0.bn1", "_native_batch_norm"],
            ),
            _scoped(helper.make_node("Relu", ["getitem_3"], ["relu_1"]), ["", "layer1", "layer1.0", "relu_1"]),
            _scoped(helper.make_node("Flatten", ["relu_1"], ["view"]), ["", "view"]),
            _scoped(helper.make_node("Gemm", ["view", "fc.weight"], ["logits"], transB=1), ["", "fc", "linear"]),
        ],
        **{"layer1.0.conv1.weight": np.zeros((3, 3, 1, 1), np.float32), "fc.weight": _FC},
    )
    assert [node.name for node in rename(model).graph.node] == ["layer1.0.conv1", "layer1.0.Relu", "Flatten", "fc"]


def test_a_node_without_any_hint_is_named_by_its_operator() -> None:
    model = _model([helper.make_node("Relu", ["input"], ["x"]), helper.make_node("Relu", ["x"], ["logits"])])
    named = rename(model).graph
    assert [(node.name, node.output[0]) for node in named.node] == [("Relu", "Relu.out"), ("Relu_1", "logits")]


def test_second_outputs_and_absent_inputs_keep_their_place() -> None:
    model = _model(
        [
            helper.make_node("Clip", ["input", "", "high"], ["clipped"]),
            helper.make_node("Split", ["clipped"], ["a", "b"], axis=1, num_outputs=2),
            helper.make_node("Add", ["b", "b"], ["logits"]),
        ],
        high=np.array(6, np.float32),
    )
    named = rename(model).graph
    assert list(named.node[0].input) == ["input", "", "Clip.max"]
    assert list(named.node[1].output) == ["Split.out", "Split.out1"]
    assert list(named.node[2].input) == ["Split.out1", "Split.out1"]


def test_the_given_graph_is_not_changed() -> None:
    model = _model([helper.make_node("Relu", ["input"], ["logits"], name="original")])
    before = model.SerializeToString()
    rename(model)
    assert model.SerializeToString() == before
