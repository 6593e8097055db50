"""The runtime tensorrt-rtx builds with NVIDIA's real builder, for GPUs that are not here."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.graph.lint_cases import CASES
from tests.rtx.mutations import subjects
from trtbench.engines.base import BuildOptions, BuildRequest, backend
from trtbench.engines.tensorrt_rtx import build
from trtbench.errors import EngineError, GraphError, UnsupportedError
from trtbench.graph.half import to_half
from trtbench.graph.view import QUANTIZERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., BuildRequest]

pytestmark = pytest.mark.rtx


def _float() -> onnx.ModelProto:
    """Return the network without its Q/DQ pairs."""
    graph = onnx.ModelProto()
    graph.CopyFrom(subjects()[0])
    nodes = [node for node in graph.graph.node if node.op_type not in QUANTIZERS]
    for node in nodes:
        node.input[:] = [name.removesuffix(".dequantized") for name in node.input]
    del graph.graph.node[:], graph.graph.value_info[:]
    graph.graph.node.extend(nodes)
    return graph


_GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "fp32": _float,
    "fp16": lambda: to_half(_float(), dtype="fp16").proto,
    "bf16": lambda: to_half(_float(), dtype="bf16").proto,
    "int8": lambda: subjects()[0],
    "int8+fp16": lambda: subjects()[1],
}


@pytest.fixture
def request_of(tmp_path: Path) -> Make:
    def make(precision: str, graph: onnx.ModelProto | None = None, **options: Any) -> BuildRequest:
        source = tmp_path / f"{precision}.onnx"
        onnx.save(graph or _GRAPHS.get(precision, _float)(), source)
        engine = tmp_path / "engines" / f"net.{precision}.rtxplan"
        return BuildRequest(source=source, engine=engine, precision=precision, options=BuildOptions(**options))

    return make


@pytest.mark.parametrize("precision", _GRAPHS)
def test_every_precision_is_built_and_told_by_layer(precision: str, request_of: Make) -> None:
    request = request_of(precision, batch_sizes=(1, 8), targets=("sm89", "sm120"))

    result = backend("tensorrt-rtx").build(request)

    target = "int8" if precision.startswith("int8") else precision
    assert result.achieved in {precision, f"{target} in 4 of 4 convolutions"}
    assert result.facts["layers"]["convolutions"] == dict.fromkeys(("s.Conv", "m.Conv", "d.Conv", "w.Conv"), target)
    assert request.engine.read_bytes()[32] == 0x08 | 0x10  # the targets, in the file's own header
    assert 0 < result.weight_bytes < request.engine.stat().st_size
    assert ("may be slower than fp16" in " ".join(result.notes)) == (target == "int8")
    assert "bytes are weights; the rest is kernels" in result.notes[-1]
    assert ("zeros that pad depthwise convolutions" in result.notes[-1]) == (target == "int8")
    assert [path.name for path in request.engine.parent.iterdir()] == [request.engine.name]


def test_a_network_without_depthwise_convolutions_is_not_said_to_be_padded(request_of: Make) -> None:
    graph = subjects()[0]
    (depthwise,) = (node for node in graph.graph.node if node.name == "d.Conv")
    weight = next(item for item in graph.graph.initializer if item.name == "depth")
    weight.CopyFrom(numpy_helper.from_array(np.full((8, 8, 3, 3), 0.1, np.float32), "depth"))
    next(item for item in depthwise.attribute if item.name == "group").i = 1

    result = backend("tensorrt-rtx").build(request_of("int8", graph, targets=("sm89",)))

    assert result.notes[-1].endswith("bytes are weights; the rest is kernels")


def test_progress_is_told_from_nothing_to_all(request_of: Make) -> None:
    told: list[float] = []
    request = request_of("fp32", targets=("sm89",))

    backend("tensorrt-rtx").build(replace(request, on_progress=lambda _phase, share: told.append(share)))

    assert (told[0], told[-1]) == (0, 1)
    assert told == sorted(told)


def test_layers_of_later_profiles_are_not_counted_again(request_of: Make) -> None:
    one = backend("tensorrt-rtx").build(request_of("int8", batch_sizes=(1,), targets=("sm89",)))
    two = backend("tensorrt-rtx").build(request_of("int8", batch_sizes=(1, 8), targets=("sm89",)))

    assert two.facts["layers"] == one.facts["layers"]


@pytest.mark.parametrize(
    ("precision", "options", "words"),
    [
        ("int8", {"targets": ("sm75", "sm89")}, "precision 'int8' for sm75"),
        ("bf16", {"targets": ("sm75",)}, "no BF16 there"),
        ("fp8", {"targets": ("sm86", "sm89")}, "for sm86: got no FP8 there.*`targets: .sm89, sm120, sm121.`"),
        ("fp8+fp16", {}, "for sm80, sm86: got no FP8 there"),
        ("fp16", {"sparse": True}, "sparse: true on tensorrt-rtx: got no effect"),
        ("fp16", {"hardware_compatible": True}, "name the GPUs by `targets`"),
        ("fp16", {"version_compatible": True}, "bound to its version"),
    ],
)
def test_what_has_no_effect_is_refused_with_the_cure(
    precision: str, options: dict[str, Any], words: str, request_of: Make
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        backend("tensorrt-rtx").build(request_of(precision, **options))


def test_a_refusal_of_the_builder_is_told_in_its_words_and_leaves_nothing(request_of: Make) -> None:
    request = request_of("fp32", targets=("sm75",))

    with pytest.raises(EngineError, match=r"cannot build net\.fp32\.rtxplan.*FP32 GEMM is not supported"):
        backend("tensorrt-rtx").build(request)
    assert list(request.engine.parent.iterdir()) == []


def test_a_workspace_that_is_too_small_is_told_with_its_cure(request_of: Make) -> None:
    with pytest.raises(EngineError, match="raise workspace_mib"):
        backend("tensorrt-rtx").build(request_of("int8", targets=("sm89",), workspace_mib=0))


def test_a_graph_that_would_end_the_process_is_refused_before(request_of: Make) -> None:
    case = next(case for case in CASES if case.name == "a computed scale")

    with pytest.raises(GraphError, match="known at run time only"):
        backend("tensorrt-rtx").build(request_of("int8", case.graph))


def test_an_end_of_the_process_is_told(request_of: Make) -> None:
    with pytest.raises(EngineError, match="its builder's process ended: SIGSEGV"):
        build._read({}, -signal.SIGSEGV, request_of("fp32"))


def test_an_engine_is_bound_to_its_targets_and_not_to_this_machine() -> None:
    facts = backend("tensorrt-rtx").facts({"targets": ["sm120", "sm89"]})

    assert (facts.device, facts.machine) == ("RTX sm89, sm120", "any machine with a GPU of sm89, sm120")
    assert facts.why_not_run.startswith("built for RTX sm89, sm120, not run")
    assert backend("tensorrt-rtx").facts().device == "RTX sm80, sm86, sm89, sm120, sm121"
