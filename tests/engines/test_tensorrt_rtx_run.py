"""An engine of TensorRT for RTX runs on a GPU that it is for, on the double: no device has run one of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

from trtbench.errors import EngineError, SidecarError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from trtbench.engines.base import Engine
    from trtbench.engines.sidecar import Sidecar

    Open = Callable[..., Engine]

_PLANS: dict[tuple[str, ...], bytes] = {}  # what was built already, in a process of its own


@pytest.fixture
def opened(
    tensorrt_rtx_double: ModuleType, float_graph: Path, sidecar: Callable[..., Sidecar], tmp_path: Path
) -> Iterator[Open]:
    """Build an engine of the tiny network for targets, and open it; keywords change its sidecar."""
    engines: list[Engine] = []

    def make(*, targets: tuple[str, ...] = ("sm89",), settings: dict[str, Any] | None = None, **changes: Any) -> Engine:
        from trtbench.engines.base import BuildOptions, BuildRequest, backend

        path = tmp_path / "net.rtxplan"
        options = BuildOptions(batch_sizes=(1, 6), targets=targets)
        if targets not in _PLANS:
            request = BuildRequest(source=float_graph, engine=tmp_path / "new", precision="fp32", options=options)
            assert backend("tensorrt-rtx").build(request).achieved == "fp32"
            _PLANS[targets] = request.engine.read_bytes()
        if not path.exists():
            path.write_bytes(_PLANS[targets])
        version = tensorrt_rtx_double.__version__
        made = sidecar(**{"backend_version": version, "device": "RTX sm89", "options": {"targets": targets}} | changes)
        engines.append(backend("tensorrt-rtx").open(path, made, settings or {}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_logits_are_those_of_onnx_runtime_by_kernels_that_were_compiled_first(
    opened: Open, float_graph: Path, images: NDArray[np.float32]
) -> None:
    engine: Any = opened()
    session = engine.session(6)
    expected = ort.InferenceSession(str(float_graph), providers=["CPUExecutionProvider"]).run(None, {"input": images})

    for _ in range(2):  # plainly, then by the CUDA graph
        session.copy_in(images)
        session.enqueue()
        np.testing.assert_allclose(session.copy_out(), expected[0], rtol=1e-5, atol=1e-5)
    assert session.time(3).shape == (3,)
    assert engine.device == "Simulated GPU"
    assert session.describe().settings["cuda_graph"] is True
    assert engine._contexts.config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"


def test_compiled_kernels_are_kept_beside_the_engine_and_read_by_the_next_run(opened: Open, tmp_path: Path) -> None:
    def compiles() -> bool:
        engine = opened()
        notes = engine.session(1).describe().notes
        engine.close()
        return any("kernels were compiled on this GPU as it was opened" in note for note in notes)

    assert (compiles(), compiles()) == (True, False)
    (kept,) = tmp_path.glob("*.kernels")
    assert kept.name == "net.rtxplan.simulated-gpu.kernels"
    kept.write_bytes(b"of another driver")
    assert (compiles(), compiles()) == (True, False)


def test_a_context_that_does_not_fit_works_in_our_memory(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-context")
    session = opened().session(1)

    session.enqueue()
    session.synchronize()
    assert "bytes of ours" in " ".join(session.describe().notes)


def test_an_engine_for_other_gpus_is_not_loaded(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.6")

    with pytest.raises(EngineError, match="UNSUPPORTED_CC; build it for this GPU: name its compute capability among"):
        opened()


def test_bytes_that_are_no_engine_are_not_loaded(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "net.rtxplan").write_bytes(b"no engine")

    with pytest.raises(EngineError, match="MALFORMED_ENGINE; build it again: `trtbench build"):
        opened()


def test_an_engine_of_another_version_is_not_loaded(opened: Open) -> None:
    with pytest.raises(SidecarError, match=r"1\.6\.0\.1"):
        opened(backend_version="1.6.0.1")


@pytest.mark.usefixtures("tensorrt_rtx_double")
@pytest.mark.parametrize(
    ("sm", "targets", "device", "why"),
    [
        ("8.9", ["sm89", "sm120"], "Simulated GPU", ""),
        ("8.6", ["sm89"], "RTX sm89", "built for RTX sm89, not run: Simulated GPU is SM 8.6; add sm86 to the targets"),
        ("9.0", [], "RTX sm80, sm86, sm89, sm120, sm121", "TensorRT for RTX has no such target"),
    ],
)
def test_the_runtime_says_whether_the_gpu_here_is_among_the_targets(
    monkeypatch: pytest.MonkeyPatch, sm: str, targets: list[str], device: str, why: str
) -> None:
    from trtbench.engines.base import backend

    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", sm)
    found = backend("tensorrt-rtx").facts({"targets": targets})

    assert found.device == device
    assert why in found.why_not_run
    assert bool(why) == bool(found.why_not_run)
    assert replace(found, device="", why_not_run="").machine.startswith("any machine with a GPU of sm8")


@pytest.mark.usefixtures("tensorrt_rtx_double")
def test_rows_of_the_double_say_that_they_are_no_measurements() -> None:
    from trtbench.engines.base import backend

    assert backend("tensorrt-rtx").is_simulated()
