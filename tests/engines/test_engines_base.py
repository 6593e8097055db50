"""PyTorch eager runs the checkpoint itself; any runtime is found by its name and has what the Protocol names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from trtbench.engines.base import BuildRequest, backend, load_backend, resolve_backend
from trtbench.engines.pytorch import EAGER
from trtbench.errors import UnsupportedError
from trtbench.models import build_model, save_model
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.engines.sidecar import Sidecar


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    network = build_model("resnet20", num_classes=4).eval()
    path = tmp_path / "model.safetensors"
    save_model(path, network, name="resnet20", num_classes=4, metadata={})
    return path, network


def test_eager_gives_the_networks_logits(
    checkpoint: tuple[Path, torch.nn.Module],
    tmp_path: Path,
    sidecar: Callable[..., Sidecar],
    images: NDArray[np.float32],
) -> None:
    source, network = checkpoint
    engine = tmp_path / "dense.safetensors"
    request = BuildRequest(source=source, engine=engine, precision="fp32", model="resnet20", num_classes=4)
    threads = torch.get_num_threads()

    result = EAGER.build(request)
    try:
        session = EAGER.open(engine, sidecar(backend="eager"), {"threads": 1}).session(len(images))
        session.copy_in(images)
        session.enqueue()
        session.synchronize()
        logits = session.copy_out()
        durations = {scope: session.time(3, launches_per_sample=1, scope=scope) for scope in ("device", "host-to-host")}
        session.close()
    finally:
        torch.set_num_threads(threads)

    with torch.inference_mode():
        np.testing.assert_allclose(logits, network(torch.from_numpy(images)).numpy(), atol=1e-5)
    assert engine.read_bytes() == source.read_bytes()
    assert result.weight_bytes == sum(tensor.nbytes for tensor in network.state_dict().values())
    assert all((found > 0).all() for found in durations.values())


def test_eager_refuses_a_precision_it_does_not_have(tmp_path: Path) -> None:
    request = BuildRequest(source=tmp_path, engine=tmp_path / "e", precision="int8")

    with pytest.raises(UnsupportedError, match="int8"):
        EAGER.build(request)


@pytest.mark.parametrize("name", ["eager", "fake", "onnxruntime-cpu"])
def test_a_runtime_that_is_always_here_says_what_and_where_it_is(name: str) -> None:
    found = backend(name)

    assert found.facts().version
    assert found.facts().device
    assert found.facts().machine == found.facts({"hardware_compatible": True}).machine
    assert set(found.facts().usual_precisions) <= set(found.precisions)
    assert found.is_simulated() == (name == "fake")


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_every_runtime_bears_its_own_name(name: str) -> None:
    found = backend(name)

    assert found.name == name
    assert found.suffix.startswith(".")
    assert found.precisions


@pytest.mark.parametrize(("place", "got"), [("os:sep", "str"), ("os:none_such", "nothing")])
def test_what_is_no_runtime_is_refused_where_its_line_says_it_stands(place: str, got: str) -> None:
    with pytest.raises(
        UnsupportedError, match=f"backend at {place}: expected .*Backend names, got {got}; mend its line"
    ):
        load_backend(place)


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="compile or eager or eager-cudagraph or fake or onnxruntime-cpu"):
        backend("openvino")


def test_auto_is_onnx_runtime_here_and_other_names_are_themselves() -> None:
    assert resolve_backend("auto") == "onnxruntime-cpu"
    assert resolve_backend("eager") == "eager"
