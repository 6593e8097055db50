"""A user's ONNX file is brought into the form of our own exports, or refused with the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtbench.errors import ConfigError
from trtbench.graph.given import import_onnx
from trtbench.graph.reference import run_reference

if TYPE_CHECKING:
    from pathlib import Path


def _save(path: Path, *, outputs: int = 1, lists_weights: bool = False) -> onnx.ModelProto:
    """A classifier of 3 classes with names of its own: `pixels` (n, 3, 4, 4) to `scores` (n, 3)."""
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((48, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "w"], ["scores"], "fc"),
    ]
    shown = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])]
    shown += [helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 48])] * (outputs - 1)
    taken = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 4, 4])]
    taken += [helper.make_tensor_value_info("w", TensorProto.FLOAT, [48, 3])] * lists_weights
    graph = helper.make_graph(nodes, "g", taken, shown, [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, path)
    return proto


@pytest.mark.parametrize("lists_weights", [False, True])
def test_the_graph_keeps_its_logits_and_gets_our_names(tmp_path: Path, *, lists_weights: bool) -> None:
    proto = _save(tmp_path / "user.onnx", lists_weights=lists_weights)
    images = np.random.default_rng(1).standard_normal((5, 3, 4, 4), dtype=np.float32)

    import_onnx(tmp_path / "user.onnx", tmp_path / "ours.onnx", input_shape=(3, 4, 4), num_classes=3)

    ours = run_reference(onnx.load(tmp_path / "ours.onnx"), {"input": images})
    users = run_reference(proto, {"pixels": images})
    np.testing.assert_allclose(ours["logits"], users["scores"], atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "size", "words"), [(10, 4, r"logits of shape \(2, 10\)"), (3, 8, r"takes float32 \(2, 3, 8, 8\)")]
)
def test_a_graph_that_does_not_fit_the_data_is_refused(tmp_path: Path, classes: int, size: int, words: str) -> None:
    _save(tmp_path / "user.onnx")

    with pytest.raises(ConfigError, match=words):
        import_onnx(tmp_path / "user.onnx", tmp_path / "o.onnx", input_shape=(3, size, size), num_classes=classes)
    assert not (tmp_path / "o.onnx").exists()


def test_a_graph_with_two_outputs_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "user.onnx", outputs=2)

    with pytest.raises(ConfigError, match="got 1 inputs and 2 outputs"):
        import_onnx(tmp_path / "user.onnx", tmp_path / "o.onnx", input_shape=(3, 4, 4), num_classes=3)


def test_bytes_that_are_no_graph_are_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "user.onnx").write_bytes(b"\x00\x01 not a graph")

    with pytest.raises(ConfigError, match=r"a valid ONNX file.*free batch dimension"):
        import_onnx(tmp_path / "user.onnx", tmp_path / "o.onnx", input_shape=(3, 4, 4), num_classes=3)
