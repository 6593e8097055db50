"""What a bundle gives Triton is true to its engine, and a real server counts with it what the run counted."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest

from tests.records import arrays_of
from trtbench.data import load_dataset
from trtbench.errors import CapabilityError, GateError
from trtbench.shipping import read_bundle, ship_row
from trtbench.shipping.templates import onnxruntime as runtime_of_bundles
from trtbench.shipping.templates import predict as predict_of_bundles
from trtbench.shipping.templates import triton_check, triton_model, triton_preprocess
from trtbench.shipping.triton import Served, _check, largest_batch, serve_check, write_repositories

if TYPE_CHECKING:
    from trtbench.suite import Suite

ROW = "dense int8 onnxruntime-cpu b2"
# Triton's Python backend runs this in place of the server's own backend for ONNX, which its wheel has not.
_STAND_IN = """
from pathlib import Path
import onnxruntime as ort
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        path = Path(__file__).parent / "model.onnx"
        self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def execute(self, requests):
        images = [pb.get_input_tensor_by_name(one, "input").as_numpy() for one in requests]
        found = [self.session.run(None, {"input": one})[0] for one in images]
        return [pb.InferenceResponse([pb.Tensor("logits", one)]) for one in found]
"""


@pytest.fixture
def described() -> dict[str, Any]:
    return {
        "profile": None,
        "batch_sizes": [1, 32],
        "batch_size": 1,
        "preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 8, "layout": "NCHW", "dtype": "float32"},
        "classes": ["a", "b"],
        "engine": "engine.plan",
    }


def test_batches_are_those_that_were_measured(described: dict[str, Any]) -> None:
    assert largest_batch(described, takes_any=True) == 32
    assert largest_batch(described, takes_any=False) == 0
    assert largest_batch({**described, "profile": [1, 8, 64]}, takes_any=False) == 64
    assert largest_batch({**described, "profile": [4, 8, 64]}, takes_any=False) == 0


def test_an_engine_of_one_size_is_served_at_that_size(described: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"plan")
    write_repositories(tmp_path, {**described, "batch_size": 4}, ships="tensorrt", takes_any=False, tensors=("x", "y"))

    config = (tmp_path / "triton" / "models" / "engine" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'platform: "tensorrt_plan"\nmax_batch_size: 0\n' in config
    assert '{ name: "x" data_type: TYPE_FP32 dims: [4, 3, 8, 8] }' in config
    assert '{ name: "y" data_type: TYPE_FP32 dims: [4, 2] }' in config
    assert "dynamic_batching" not in config
    assert (tmp_path / "triton" / "models" / "engine" / "1" / "model.plan").read_bytes() == b"plan"


def test_a_dynamic_engine_is_served_up_to_its_largest_batch(described: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"plan")
    write_repositories(
        tmp_path, {**described, "profile": (1, 8, 64)}, ships="tensorrt", takes_any=False, tensors=("x", "y")
    )

    for place in ("python/classifier", "models/classifier", "models/preprocess", "models/engine"):
        config = (tmp_path / "triton" / place / "config.pbtxt").read_text(encoding="utf-8")
        assert "max_batch_size: 64\n" in config
    assert 'key: "x" value: "INPUT"' in (tmp_path / "triton/models/classifier/config.pbtxt").read_text(encoding="utf-8")
    assert (tmp_path / "triton/models/classifier/labels.txt").read_text(encoding="utf-8") == "a\nb\n"


class _Tensor:
    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name = name
        self.values = values

    def as_numpy(self) -> np.ndarray:
        return self.values


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the module that Triton gives its Python models."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor = _Tensor
    module.TritonError = str
    module.InferenceResponse = lambda tensors=(), error=None: SimpleNamespace(tensors=tensors, error=error)
    module.get_input_tensor_by_name = lambda request, name: request.get(name)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    monkeypatch.setitem(sys.modules, "predict", predict_of_bundles)
    monkeypatch.setitem(sys.modules, "runtime", runtime_of_bundles)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.usefixtures("backend")
def test_requests_that_come_together_are_answered_one_by_one(shipped: Path, images: Path) -> None:
    golden = arrays_of(shipped / "golden.npz")
    file = images / "test" / "star" / "0.png"
    model = triton_model.TritonPythonModel()
    model.initialize({"model_repository": str(shipped / "triton" / "python" / "classifier")})
    requests = [
        {"PIXELS": _Tensor("PIXELS", golden["images"][:3])},
        {"IMAGE": _Tensor("IMAGE", np.array([[b"no image"]], object))},
        {"IMAGE": _Tensor("IMAGE", np.array([[file.read_bytes()]], object))},
        {},
        {"PIXELS": _Tensor("PIXELS", golden["images"][3:])},
    ]

    first, bad, one, none, last = model.execute(requests)

    together = np.concatenate([first.tensors[0].values, last.tensors[0].values])
    np.testing.assert_allclose(together, golden["logits"], rtol=1e-5, atol=1e-5)
    assert read_bundle(shipped).classes[int(one.tensors[0].values.argmax())] == "star"
    assert bad.error.startswith("expected the bytes of 8-bit image files")
    assert none.error == "expected an input PIXELS or IMAGE, got neither"


@pytest.mark.usefixtures("backend")
def test_the_first_step_of_the_ensemble_makes_the_golden_input(shipped: Path, images: Path) -> None:
    golden = arrays_of(shipped / "golden.npz")
    config = (shipped / "triton" / "models" / "preprocess" / "config.pbtxt").read_text(encoding="utf-8")
    fit = json.loads(config.split("string_value: ")[1].rpartition(" } }")[0])
    model = triton_preprocess.TritonPythonModel()
    parameters = {"preprocessing": {"string_value": fit}}
    place = str(shipped / "triton" / "models" / "preprocess")
    said = {"model_config": json.dumps({"parameters": parameters}), "model_repository": place, "model_version": "1"}
    model.initialize(said)
    data = (images / "test" / "star" / "0.png").read_bytes()

    found, one, bad = model.execute(
        [
            {"PIXELS": _Tensor("PIXELS", golden["images"])},
            {"IMAGE": _Tensor("IMAGE", np.array([[data]], object))},
            {},
        ]
    )

    np.testing.assert_array_equal(found.tensors[0].values, golden["inputs"])
    assert one.tensors[0].values.shape == (1, 3, 16, 16)
    assert "neither PIXELS nor IMAGE" in bad.error


class _Given:
    def __init__(self, name: str, shape: list[int], kind: str) -> None:
        self.name, self.shape, self.kind = name, shape, kind

    def set_data_from_numpy(self, values: np.ndarray) -> None:
        assert list(values.shape) == self.shape
        self.values = values


class _Client:
    """A server that computes with the bundle, ready at the second look, or never."""

    network: Any
    looks, ready_after = 0, 2

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_server_ready(self) -> bool:
        type(self).looks += 1
        return self.looks >= self.ready_after

    def is_model_ready(self, name: str) -> bool:
        return name == "classifier"

    def infer(self, name: str, given: list[_Given], outputs: tuple[int, ...] = ()) -> Any:
        assert name == "classifier"
        values, network = given[0].values, self.network
        if len(values) > 2:
            raise ValueError("a batch of 3 is beyond 2")
        files = given[0].name == "IMAGE"
        pixels = np.stack([network.decode(io.BytesIO(one)) for one in values[0]]) if files else _planes(values)
        logits = network.logits(pixels)
        first = [f"{row.max():f}:{row.argmax()}:{network.bundle['classes'][row.argmax()]}" for row in logits]
        found = np.array([[one.encode()] for one in first], object) if any(outputs) else logits
        return SimpleNamespace(as_numpy=lambda _: found)


@pytest.fixture
def triton_client(shipped: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the client that a bundle brings, on a double of NVIDIA's."""
    request.getfixturevalue("backend")
    monkeypatch.setattr(_Client, "network", predict_of_bundles.Classifier(shipped), raising=False)
    monkeypatch.setattr(_Client, "looks", 0)
    for kind in ("http", "grpc"):
        module = ModuleType(f"tritonclient.{kind}")
        wanted = {"InferInput": _Given, "InferRequestedOutput": lambda _, class_count: class_count}
        vars(module).update(wanted, InferenceServerClient=_Client)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "tritonclient", ModuleType("tritonclient"))
    place = "trtbench.shipping.templates.triton_client"
    monkeypatch.delitem(sys.modules, place, raising=False)
    client = importlib.import_module(place)
    monkeypatch.setattr(client, "GOLDEN", shipped / "golden.npz")
    return client


def _planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(0, 3, 1, 2)


def test_the_client_of_a_bundle_names_what_is_on_images(
    triton_client: ModuleType, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["client.py", str(images / "test" / "star" / "0.png")])
    triton_client.main()
    assert re.search(r"0.png: [0-9.]+:2:star\n$", capsys.readouterr().out)


def test_the_client_of_a_bundle_holds_a_server_to_the_golden_images(
    triton_client: ModuleType,
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["client.py"])
    with pytest.raises(SystemExit) as stop:
        triton_client.main()
    assert not stop.value.code
    assert re.match(r"golden images: 10, LOGITS at most \S+ apart\n", capsys.readouterr().out)

    golden = arrays_of(shipped / "golden.npz")
    predict_of_bundles.write_arrays(tmp_path / "golden.npz", {**golden, "logits": golden["logits"][::-1]})
    monkeypatch.setattr(triton_client, "GOLDEN", tmp_path / "golden.npz")
    with pytest.raises(SystemExit) as stop:
        triton_client.main()
    assert stop.value.code == 1


@pytest.mark.usefixtures("triton_client")
def test_a_server_is_counted_by_both_protocols_at_every_batch(
    shipped: Path, small_suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = load_dataset(small_suite.data).test
    np.save(tmp_path / "pixels.npy", test.images.transpose(0, 2, 3, 1))
    np.save(tmp_path / "labels.npy", test.labels)
    task: dict[str, Any] = {name: str(tmp_path / f"{name}.npy") for name in ("pixels", "labels")}
    task |= {"repository": "models", "output": str(tmp_path / "found.json"), "batches": [1, 2], "refused": 3}
    monkeypatch.setattr(triton_check, "serving", lambda _: nullcontext({"http": 1, "grpc": 2}))
    monkeypatch.setattr(sys, "argv", ["triton_check.py", str(tmp_path / "task.json")])

    for is_fixed in (False, True):
        asked = {**task, "is_fixed": is_fixed, "streams": [2], "requests": 4}
        (tmp_path / "task.json").write_text(json.dumps(asked))
        triton_check.main()

        found = json.loads((tmp_path / "found.json").read_bytes())
        counts = {(one["protocol"], one["batch"], one["correct"], one["total"]) for one in found["counts"]}
        right = read_bundle(shipped).correct
        assert counts == {(name, batch, right, 18) for name in ("http", "grpc") for batch in (1, 2)}
        assert [one["reason"] for one in found["refused"]] == ["a batch of 3 is beyond 2"] * 2
        assert [(one["streams"], one["n"]) for one in found["loads"]] == [(2, 4)]


@pytest.mark.usefixtures("triton_client")
def test_a_server_serves_while_it_is_asked_and_one_that_does_not_start_leaves_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "pytriton" / "tritonserver"
    stubs = server / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (server / "backends" / "python", server / "bin", stubs):
        folder.mkdir(parents=True)
    (tmp_path / "pytriton" / "__init__.py").touch()
    (stubs / "triton_python_backend_stub").touch()
    program, started = server / "bin" / "tritonserver", list[Any]()

    class Watched(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **more: Any) -> None:
            started.append(self)
            super().__init__(*given, **more)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", Watched)

    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with triton_check.serving("models") as ports:
        assert started[0].poll() is None
    assert started[0].poll() is not None
    assert set(ports) == {"http", "grpc"}
    assert {f"--{name}-port={port}" for name, port in ports.items()} < set(started[0].args)
    assert "--model-repository=models" in started[0].args

    monkeypatch.setattr(_Client, "ready_after", 10**9)
    program.write_text("#!/bin/sh\necho no backend\n")
    with pytest.raises(SystemExit, match="did not get ready: no backend"), triton_check.serving("models"):
        pass


def test_a_server_that_counts_otherwise_breaks_the_proof() -> None:
    counts = ({"protocol": "http", "batch": 1, "correct": 17, "total": 18},)
    refused = ({"protocol": "http", "batch": 33, "reason": "too large"},)
    good = Served(counts=counts, refused=refused, loads=())

    _check(good, correct=17, total=18, name="bundle")
    with pytest.raises(GateError, match="expected 18 of 18 images right, got 17 by http at batch 1"):
        _check(good, correct=18, total=18, name="bundle")
    with pytest.raises(GateError, match="beyond the largest to be refused, got an answer"):
        _check(replace(good, refused=()), correct=17, total=18, name="bundle")


def test_a_python_that_cannot_serve_is_told(shipped: Path, small_suite: Suite, tmp_path: Path) -> None:
    test = load_dataset(small_suite.data).test
    given = {"largest": 2, "batch": 2, "correct": 18}

    with pytest.raises(CapabilityError, match="expected a Python with nvidia-pytriton"):
        serve_check(shipped, test, python=tmp_path / "none", **given)
    with pytest.raises(CapabilityError, match="expected the package nvidia-pytriton"):
        serve_check(shipped, test, python=Path(sys.executable), **given)


def _environment(folder: Path, *packages: str) -> Path:
    """Return the Python of a new environment with these packages, and no other."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-E", "-m", "pip", "install", "--quiet", *packages]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if run.returncode:
        pytest.skip(f"pip install {' '.join(packages)}: {run.stderr.strip()[-300:]}")
    return python


@pytest.fixture(scope="session")
def triton_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with NVIDIA's server: $TRITON_PYTHON, or a new environment."""
    if named := os.environ.get("TRITON_PYTHON"):
        return Path(named)
    packages = ("nvidia-pytriton", "pillow", "onnxruntime", "numpy<2")
    return _environment(tmp_path_factory.mktemp("triton") / "venv", *packages)


@pytest.mark.slow
def test_a_real_server_counts_what_the_run_counted(small_run: Path, triton_python: Path, tmp_path: Path) -> None:
    found = ship_row(small_run, tmp_path / "bundle", row=ROW, triton=triton_python).bundle

    assert found.served is not None
    counts = [(one["protocol"], one["batch"], one["correct"]) for one in found.served.counts]
    assert counts == [(protocol, batch, 18) for protocol in ("http", "grpc") for batch in (1, 2)]
    assert [(one["protocol"], one["batch"]) for one in found.served.refused] == [("http", 3), ("grpc", 3)]
    assert [one["streams"] for one in found.served.loads] == [1, 4, 16]
    assert "18 of 18 by http at batch 1" in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_ensemble_answers_as_the_engine_does(shipped: Path, triton_python: Path, tmp_path: Path) -> None:
    """The wheel's server lacks the backend for ONNX: a Python model stands in for this one step."""
    models = shutil.copytree(shipped / "triton" / "models", tmp_path / "triton" / "models")
    shutil.copy(shipped / "golden.npz", tmp_path)
    client = shutil.copy(shipped / "triton" / "client.py", tmp_path / "triton")
    config = models / "engine" / "config.pbtxt"
    text = config.read_text(encoding="utf-8").replace('platform: "onnxruntime_onnx"', 'backend: "python"')
    config.write_text(f"{text}instance_group [{{ kind: KIND_CPU }}]\n", encoding="utf-8")
    (models / "engine" / "1" / "model.py").write_text(_STAND_IN, encoding="utf-8")
    script = (
        f"import subprocess, sys; sys.path.insert(0, {str(Path(triton_check.__file__).parent)!r})\n"
        "from triton_check import serving\n"
        f"with serving({str(models)!r}) as ports:\n"
        f"    url = f\"127.0.0.1:{{ports['http']}}\"\n"
        f"    sys.exit(subprocess.run([sys.executable, {str(client)!r}, '--url', url]).returncode)\n"
    )

    run = subprocess.run([str(triton_python), "-E", "-c", script], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("golden images: 10, logits at most ")


@pytest.mark.slow
def test_a_bundle_runs_in_an_environment_without_trtbench(shipped: Path, images: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "venv", "numpy", "pillow", "onnxruntime")
    files = sorted((images / "test").rglob("*.png"))

    run = subprocess.run(
        [str(python), "-E", str(shipped / "predict.py"), "--json", *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )

    found = [json.loads(line) for line in run.stdout.splitlines()]
    right = sum(one["top"][0]["class"] == file.parent.name for one, file in zip(found, files, strict=True))
    assert right == read_bundle(shipped).correct
