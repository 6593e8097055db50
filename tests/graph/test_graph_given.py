"""A user's ONNX file is brought into the form of our own exports, or refused with the cure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtbench.errors import ConfigError
from trtbench.graph.given import import_onnx
from trtbench.graph.placement import plan_qdq
from trtbench.graph.reference import run_reference
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

_FIT = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), size=4)


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

    import_onnx(tmp_path / "user.onnx", tmp_path / "ours.onnx", num_classes=3, preprocessing=_FIT)

    ours = run_reference(onnx.load(tmp_path / "ours.onnx"), {"input": images})
    users = run_reference(proto, {"pixels": images})
    np.testing.assert_allclose(ours["logits"], users["scores"], atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "size", "words"), [(10, 4, r"logits of shape \(2, 10\)"), (3, 8, r"takes float32 \(2, 3, 8, 8\)")]
)
def test_a_graph_that_does_not_fit_the_data_is_refused(tmp_path: Path, classes: int, size: int, words: str) -> None:
    _save(tmp_path / "user.onnx")

    with pytest.raises(ConfigError, match=words):
        import_onnx(
            tmp_path / "user.onnx", tmp_path / "o.onnx", num_classes=classes, preprocessing=replace(_FIT, size=size)
        )
    assert not (tmp_path / "o.onnx").exists()


def test_a_graph_with_two_outputs_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "user.onnx", outputs=2)

    with pytest.raises(ConfigError, match="got 1 inputs and 2 outputs"):
        import_onnx(tmp_path / "user.onnx", tmp_path / "o.onnx", num_classes=3, preprocessing=_FIT)


def test_bytes_that_are_no_graph_are_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "user.onnx").write_bytes(b"\x00\x01 not a graph")

    with pytest.raises(ConfigError, match=r"a valid ONNX file.*free batch dimension"):
        import_onnx(tmp_path / "user.onnx", tmp_path / "o.onnx", num_classes=3, preprocessing=_FIT)


def _foreign(
    path: Path, body: str, *, taken: str = "float[batch, 3, 4, 4]", made: str = "float[batch, 3]", **options: Any
) -> onnx.ModelProto:
    """Save a classifier of 3 classes in a form that is not ours; `opset` is 20, `dtype` float32 if not said."""
    opset, dtype = options.get("opset", 20), options.get("dtype", np.float32)
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({taken} x) => ({made} y) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    draw = np.random.default_rng(0).standard_normal
    for name, shape in {"w": (5, 3, 3, 3), "f": (20, 3), "f1": (5, 3), "head": (3, 5, 1, 1)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(draw(shape).astype(dtype), name))
    for name, array in {"e": np.array([0.5, 1, 2, 0.7, 1.1]), "one": [1, -1], "eight": [8, 20]}.items():
        kind = dtype if name == "e" else np.int64
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array, kind), name))
    onnx.save(proto, path)
    return proto


_BODY = "c = Conv(x, w) r = Relu(c) p = Flatten(r) y = MatMul(p, f)"
_FP16 = "float16[batch, 3, 4, 4]"


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        (_BODY, {"taken": "float[1, 3, 4, 4]", "made": "float[1, 3]"}, ["its batch, fixed to 1, freed"]),
        (
            "c = Conv(x, w) p = Reshape(c, eight) y = MatMul(p, f)",
            {"taken": "float[8, 3, 4, 4]", "made": "float[8, 3]"},
            ["its batch, fixed to 8, freed"],
        ),
        (
            "c = Conv(x, w) p = Reshape(c, one) y = MatMul(p, f)",
            {"taken": "float[1, 3, 4, 4]", "made": "float[1, 3]"},
            ["its batch, fixed to 1, freed"],
        ),
        (
            "c = Conv(x, w) p = GlobalAveragePool(c) q = Flatten(p) y = MatMul(q, f1)",
            {"taken": "float[batch, 3, h, w]"},
            ["its free axes fixed to images of 3 x 4 x 4"],
        ),
        (
            "c = Conv(x, w) n = BatchNormalization(c, e, e, e, e) p = Flatten(n) y = MatMul(p, f)",
            {"opset": 11},
            ["opset 11 raised to 17"],
        ),
        (
            "c = Conv(x, w) p = GlobalAveragePool(c) y = Conv(p, head)",
            {"made": "float[batch, 3, 1, 1]"},
            ["its logits (batch, classes, 1, 1) flattened"],
        ),
        (
            f"t = Transpose<perm = [0, 3, 1, 2]>(x) {_BODY.replace('(x', '(t')}",
            {"taken": "float[batch, 4, 4, 3]"},
            ["a Transpose before its input, which takes (batch, height, width, channels)"],
        ),
        (
            f"t = Cast<to = 1>(x) {_BODY.replace('(x', '(t')}",
            {"taken": "uint8[batch, 3, 4, 4]"},
            ["the normalisation undone before its input, which takes uint8 pixels of 0 to 255"],
        ),
        (
            f"u = Cast<to = 1>(x) t = Transpose<perm = [0, 3, 1, 2]>(u) {_BODY.replace('(x', '(t')}",
            {"taken": "int32[batch, 4, 4, 3]"},
            [
                "a Transpose before its input, which takes (batch, height, width, channels)",
                "the normalisation undone before its input, which takes int32 pixels of 0 to 255",
            ],
        ),
        (
            _BODY,
            {"taken": _FP16, "made": "float16[batch, 3]", "dtype": np.float16},
            ["its FP16 numbers widened to FP32"],
        ),
    ],
)
def test_a_graph_in_another_form_is_brought_into_ours_and_becomes_int8(
    tmp_path: Path, body: str, options: dict[str, Any], words: list[str]
) -> None:
    _foreign(tmp_path / "user.onnx", body, **options)
    notes = import_onnx(tmp_path / "user.onnx", tmp_path / "ours.onnx", num_classes=3, preprocessing=_FIT).notes
    assert sorted(notes) == sorted(words)
    ours = onnx.load(tmp_path / "ours.onnx")
    onnx.checker.check_model(ours, full_check=True)
    (taken,) = ours.graph.input
    assert taken.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [dim.dim_value or dim.dim_param for dim in taken.type.tensor_type.shape.dim] == ["batch", 3, 4, 4]
    assert all(layer.is_quantized for layer in plan_qdq(ours).layers)
    assert "BatchNormalization" not in {node.op_type for node in ours.graph.node}


def test_a_batch_that_cannot_be_freed_is_refused(tmp_path: Path) -> None:
    """A sum over the batch is the same for one image only."""
    body = (
        "axes = Constant<value = int64[1] {0}>() m = ReduceSum(x, axes) c = Conv(m, w) p = Flatten(c) y = MatMul(p, f)"
    )
    _foreign(tmp_path / "user.onnx", body, taken="float[1, 3, 4, 4]", made="float[1, 3]")
    with pytest.raises(ConfigError, match=r"with a free batch: expected its own logits of 2 images"):
        import_onnx(tmp_path / "user.onnx", tmp_path / "ours.onnx", num_classes=3, preprocessing=_FIT)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1",
            r"got a pointer of Git LFS; fetch the file itself: git lfs pull",
        ),
        (b"PK\x03\x04", r"got a PyTorch checkpoint; .*--checkpoint"),
        (b"\x80\x02", r"got a PyTorch checkpoint; .*--checkpoint"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "user.onnx").write_bytes(head)
    with pytest.raises(ConfigError, match=words):
        import_onnx(tmp_path / "user.onnx", tmp_path / "ours.onnx", num_classes=3, preprocessing=_FIT)


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    _foreign(tmp_path / "user.onnx", "y = SequenceConstruct(x)", made="seq(float[batch, 3, 4, 4])")
    with pytest.raises(ConfigError, match=r": y: expected a tensor, got a sequence"):
        import_onnx(tmp_path / "user.onnx", tmp_path / "ours.onnx", num_classes=3, preprocessing=_FIT)


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        ("y = Cast <to = 7> (x)", {"made": "int64[batch, 3, 4, 4]"}, "y: expected floats, got TensorProto.INT64"),
        ("y = ReduceMean <keepdims = 0> (x)", {"made": "float"}, r"y: expected an output \(batch, ...\)"),
        (
            "y = ReduceMean <keepdims = 0> (x)",
            {"taken": "float[1, 3, 4, 4]", "made": "float"},  # as many numbers as batches of one image
            r"y: expected an output \(batch, ...\) of 2 images, got shape \(\)",
        ),
    ],
)
def test_an_output_that_cannot_be_compared_image_by_image_is_refused(
    tmp_path: Path, body: str, options: dict[str, str], words: str
) -> None:
    _foreign(tmp_path / "user.onnx", body, **options)
    with pytest.raises(ConfigError, match=words):
        import_onnx(tmp_path / "user.onnx", tmp_path / "ours.onnx", num_classes=None, preprocessing=_FIT)
