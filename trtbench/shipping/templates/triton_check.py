"""Serve a model repository on loopback, send images through HTTP and gRPC, and write what came back as JSON.

It runs in an environment of its own, of `pip install nvidia-pytriton pillow "numpy<2"` and the runtime of the engine,
by `python triton_check.py TASK.json`: that wheel carries NVIDIA's server, and wants an older NumPy than trtbench.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_READY_S = 120.0


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def serving(repository: str) -> Iterator[dict[str, int]]:
    """Start the server, and yield its ports once the classifier is ready; it ends with the context."""
    spec = util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("expected the package nvidia-pytriton; pip install nvidia-pytriton 'numpy<2'")
    package = Path(next(iter(spec.submodule_search_locations)))
    server = package / "tritonserver"
    ports = {name: _port() for name in ("http", "grpc")}
    with tempfile.TemporaryDirectory(prefix="triton-") as scratch:
        backends = Path(scratch) / "backends"
        shutil.copytree(server / "backends", backends)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        command = [str(server / "bin" / "tritonserver"), f"--model-repository={repository}"]
        command += [f"--backend-directory={backends}", f"--cache-directory={server / 'caches'}"]
        for name, port in ports.items():
            command += [f"--{name}-port={port}", f"--{name}-address=127.0.0.1"]
        libraries = [str(package.parent / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
        kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
        site = os.pathsep.join(one for one in sys.path if one.endswith("site-packages"))
        found = {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)), "PYTHONPATH": site}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        variables = {**kept, **found, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        log = Path(scratch) / "server.log"
        with log.open("wb") as words:
            process = subprocess.Popen([*command, "--allow-metrics=false"], stdout=words, stderr=words, env=variables)
            try:
                _wait(process, ports["http"], log)
                yield ports
            finally:
                process.terminate()
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import tritonclient.http as triton

    until = time.monotonic() + _READY_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(Exception), triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            if client.is_server_ready() and client.is_model_ready("classifier"):
                return
        time.sleep(0.2)
    raise SystemExit("the server did not get ready: " + log.read_text(errors="replace")[-2000:])


def asking(protocol: str, port: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that sends uint8 pixels (N, H, W, C) and returns the logits."""
    import importlib

    triton: Any = importlib.import_module(f"tritonclient.{protocol}")
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")

    def ask(pixels: np.ndarray) -> np.ndarray:
        given = triton.InferInput("PIXELS", list(pixels.shape), "UINT8")
        given.set_data_from_numpy(pixels)
        logits: np.ndarray = client.infer("classifier", [given]).as_numpy("LOGITS")
        return logits

    return ask


def count(ask: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, labels: np.ndarray, batch: int) -> int:
    """Return how many images are right when they are sent in batches; a last one may not be full."""
    logits = np.concatenate([ask(pixels[start : start + batch]) for start in range(0, len(pixels), batch)])
    return int((logits.argmax(axis=1) == labels).sum())


def loaded(protocol: str, port: int, pixels: np.ndarray, *, streams: int, requests: int, batch: int) -> dict[str, Any]:
    """Return the latencies of requests of one batch, so many in flight, and the images a second."""

    def stream(number: int) -> list[float]:
        ask, took = asking(protocol, port), []
        for index in range(requests // streams):
            start = (number + index) * batch % (len(pixels) - batch + 1)
            begun = time.perf_counter()
            ask(pixels[start : start + batch])
            took.append(1000 * (time.perf_counter() - begun))
        return took

    stream(0)  # the first requests find nothing warm
    begun = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        took = np.concatenate(list(pool.map(stream, range(streams))))
    rate = batch * len(took) / (time.perf_counter() - begun)
    p50, p99 = (float(np.percentile(took, share)) for share in (50, 99))
    return {"streams": streams, "n": len(took), "p50_ms": p50, "p99_ms": p99, "throughput_ips": rate}


def main() -> None:
    """Do the task, and write what came of it."""
    task = json.loads(Path(sys.argv[1]).read_bytes())
    pixels, labels = np.load(task["pixels"]), np.load(task["labels"])
    found: dict[str, Any] = {"counts": [], "refused": [], "loads": []}
    with serving(task["repository"]) as ports:
        for protocol, port in ports.items():
            ask = asking(protocol, port)
            for batch in task["batches"]:
                padding = -len(pixels) % batch if task["is_fixed"] else 0
                padded = np.pad(pixels, ((0, padding), (0, 0), (0, 0), (0, 0)), mode="edge")
                correct = count(ask, padded, np.pad(labels, (0, padding), constant_values=-1), batch)
                found["counts"].append({"protocol": protocol, "batch": batch, "correct": correct, "total": len(labels)})
            try:
                ask(np.repeat(pixels[:1], task["refused"], axis=0))
            except Exception as error:  # noqa: BLE001  the clients of HTTP and gRPC raise their own
                found["refused"].append({"protocol": protocol, "batch": task["refused"], "reason": str(error)})
        for streams in task["streams"]:
            settings = {"streams": streams, "requests": task["requests"], "batch": task["batches"][0]}
            found["loads"].append(loaded("grpc", ports["grpc"], pixels, **settings))
    Path(task["output"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
