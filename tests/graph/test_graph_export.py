from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from trtbench.errors import GraphError, StoreError
from trtbench.graph.export import _finished, export_onnx
from trtbench.graph.lint import lint
from trtbench.graph.reference import run_reference
from trtbench.suite import ExportConfig

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.records import ExportRecord

_SHAPE = (3, 8, 8)


class _Block(nn.Module):
    """A block with shortcut A, which both exporters write with slices and a pad."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return torch.relu(out + shortcut)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = nn.Sequential(_Block())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.layer1(self.stem(x)))
        logits: Tensor = self.fc(x.view(x.size(0), -1))
        return logits


def _trained(seed: int = 0) -> nn.Module:
    """Return a network whose BatchNorms do something."""
    torch.manual_seed(seed)
    return _learnt(_Net())


def _learnt(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]  # tracked by default
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]  # tracked by default
    return model


def _export(model: nn.Module, path: Path, exporter: str = "torchscript", opset: int = 20) -> ExportRecord:
    config = ExportConfig(exporter=exporter, opset=opset)
    return export_onnx(model, path, input_shape=_SHAPE, config=config)


both = pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])


@pytest.fixture(scope="module", params=["dynamo", "torchscript"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportRecord]:
    """One network by each exporter, for the tests that only look at it: the file and its record."""
    path = tmp_path_factory.mktemp(request.param) / "net.onnx"
    return path, _export(_trained(), path, request.param)


def test_the_file_computes_the_networks_logits_at_any_batch(exported: tuple[Path, ExportRecord]) -> None:
    model = _trained()
    images = np.random.default_rng(1).standard_normal((5, *_SHAPE), dtype=np.float32)
    got = run_reference(onnx.load(exported[0]), {"input": images})["logits"]
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert 0 <= exported[1].max_abs_error < 1e-5


def test_both_exporters_write_the_same_small_graph_of_named_layers(exported: tuple[Path, ExportRecord]) -> None:
    assert exported[1].operators == {
        "Add": 1,
        "Conv": 3,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "Pad": 1,
        "Relu": 3,
        "Reshape": 1,
        "Slice": 2,
    }
    nodes = onnx.load(exported[0]).graph.node
    layers = [node.name for node in nodes if node.op_type in {"Conv", "Gemm", "Add"}]
    assert layers == ["stem.0", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.Add", "fc"]


def test_the_record_describes_the_file(exported: tuple[Path, ExportRecord]) -> None:
    path, record = exported
    proto = onnx.load(path)
    assert record.exporter == path.parent.name.rstrip("0123456789")
    assert record.opset == 20
    assert (proto.ir_version, proto.opset_import[0].version) == (10, 20)
    # 3 folded convolutions with bias, the classifier, and the int64 shapes of slices, pad and reshape
    floats = (4 * 27 + 4) + (8 * 36 + 8) + (8 * 72 + 8) + (5 * 8 + 5)
    assert floats * 4 < record.weight_bytes < floats * 4 + 200
    assert list(path.parent.iterdir()) == [path]


def test_only_the_batch_is_free_and_no_source_path_is_left(exported: tuple[Path, ExportRecord]) -> None:
    proto = onnx.load(exported[0])
    assert lint(proto) == ()
    [free] = {dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim if dim.dim_param}
    assert free == "batch"
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b".py" not in proto.SerializeToString()
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


def test_equal_models_give_equal_bytes(exported: tuple[Path, ExportRecord], tmp_path: Path) -> None:
    path, record = exported
    _export(_trained(), tmp_path / "net.onnx", record.exporter)
    assert (tmp_path / "net.onnx").read_bytes() == path.read_bytes()


def test_other_weights_give_other_bytes(tmp_path: Path) -> None:
    for seed in (0, 1):
        _export(_trained(seed), tmp_path / f"{seed}.onnx")
    assert (tmp_path / "0.onnx").read_bytes() != (tmp_path / "1.onnx").read_bytes()


@pytest.mark.slow
@both
def test_another_process_writes_the_same_bytes(tmp_path: Path, exporter: str) -> None:
    _export(_trained(), tmp_path / "a.onnx", exporter)
    code = (
        "import runpy, sys; from pathlib import Path\n"
        f"m = runpy.run_path({__file__!r})\n"
        f"m['_export'](m['_trained'](), Path(sys.argv[1]), {exporter!r})"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "b.onnx")]
    subprocess.run(command, capture_output=True, check=True)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_the_model_is_left_in_training_mode_and_unchanged(tmp_path: Path) -> None:
    model = _trained().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _export(model, tmp_path / "net.onnx")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_opset_13_is_honoured_by_the_torchscript_exporter(tmp_path: Path) -> None:
    assert _export(_trained(), tmp_path / "net.onnx", opset=13).opset == 13
    assert onnx.load(tmp_path / "net.onnx").opset_import[0].version == 13


@pytest.mark.parametrize(
    ("exporter", "opset", "message"),
    [
        ("dynamo", 17, r"export.opset 17: expected 18 to 24 with the dynamo exporter; .* to torchscript"),
        ("torchscript", 21, r"export.opset 21: expected 13 to 20 with the torchscript exporter; .* to dynamo"),
    ],
)
def test_an_opset_the_exporter_would_not_honour_is_refused(
    tmp_path: Path, exporter: str, opset: int, message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        _export(_trained(), tmp_path / "net.onnx", exporter, opset)


class _Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.svdvals(x)
        return values.flatten(1)


def test_a_network_an_exporter_cannot_trace_is_a_graph_error(tmp_path: Path) -> None:
    with pytest.raises(
        GraphError, match=r"torchscript exporter on _Untraceable: got .*svdvals.*export.exporter to dynamo"
    ):
        _export(_Untraceable(), tmp_path / "net.onnx")


class _Norms(nn.Module):
    """A pre-activation norm, one convolution under two norms, and the norm of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.hidden, self.norm, self.fc = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv(torch.relu(self.before(x))))
        x = x + self.norm2(self.conv(x))
        logits: Tensor = self.fc(torch.relu(self.norm(self.hidden(x.mean((2, 3))))))
        return logits


@both
def test_a_batchnorm_folds_where_a_layer_stands_before_it_and_stays_elsewhere(tmp_path: Path, exporter: str) -> None:
    path = tmp_path / "net.onnx"
    record = _export(_learnt(_Norms()), path, exporter)
    assert record.operators["BatchNormalization"] == 1
    proto = onnx.load(path)
    norm = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
    assert norm.input[0] == "input"
    weights = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"]
    assert len(set(weights)) == 2  # one convolution, but two folded weights
    assert lint(proto) == ()


def test_a_batchnorm_without_statistics_is_refused_by_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten())
    with pytest.raises(GraphError, match=r"without running statistics: 1: expected track_running_stats=True"):
        _export(model, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


class _DependsOnBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.mul(x.flatten(1)[:, :4], len(x))


@pytest.mark.filterwarnings("ignore:Using len to get tensor shape")  # what is wrong with this network, on purpose
def test_a_graph_with_other_logits_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(
        GraphError, match=r"at batch 1: expected PyTorch's.*within [0-9.e-]+, got .* largest difference \d"
    ):
        _export(_DependsOnBatch(), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_logits_are_compared_at_their_own_scale(tmp_path: Path) -> None:
    """In float32 the rounding of a fresh ResNet-44, whose logits reach 435, is 1.5e-4: that is no other graph."""

    class Scaled(_Net):
        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * super().forward(x)

    torch.manual_seed(0)
    assert _export(Scaled().eval(), tmp_path / "net.onnx").max_abs_error > 1e-4


@pytest.mark.filterwarnings("ignore:Using len to get tensor shape")
def test_small_logits_that_differ_are_refused_too(tmp_path: Path) -> None:
    class Small(_DependsOnBatch):
        def forward(self, x: Tensor) -> Tensor:
            return 1e-5 * super().forward(x)

    with pytest.raises(GraphError, match="largest difference"):
        _export(Small(), tmp_path / "net.onnx")


class _Invalid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * torch.nan


def test_nan_logits_are_no_agreement(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="largest difference nan"):
        _export(_Invalid(), tmp_path / "net.onnx")


def test_an_input_shape_the_network_does_not_take_is_a_graph_error(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"_Net on float32 images of shape \(2, 1, 8, 8\)"):
        export_onnx(_trained(), tmp_path / "net.onnx", input_shape=(1, 8, 8), config=ExportConfig())


def _traced(opset: int, *, operator: str = "Relu") -> onnx.ModelProto:
    signature = "net (float[batch, 4] input) => (float[batch, 4] logits)"
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> {signature} {{ logits = {operator}(input) }}'
    )


def test_another_opset_than_asked_for_is_refused() -> None:
    assert _finished(_traced(18), opset=18).ir_version == 10
    with pytest.raises(GraphError, match="expected opset 20, got 18"):
        _finished(_traced(18), opset=20)


def test_an_invalid_graph_is_refused() -> None:
    with pytest.raises(GraphError, match="the exported graph is invalid"):
        _finished(_traced(20, operator="Concat"), opset=20)


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        _export(_trained(), tmp_path / "file" / "net.onnx")
