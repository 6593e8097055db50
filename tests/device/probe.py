"""What only a device shows, in a minute: `python -m tests.device.probe` prints one JSON object.

Needs CuPy and torch. A probe that fails says so in its place, and the others go on.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench._optional import load
from trtbench.engines.cuda import open_cuda
from trtbench.engines.cuda.loops import timed_by_clock, timed_by_events, timed_in_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbench.engines.cuda.device import Cuda, Operation

# Keeps the device busy for a given time by its own clock; a host that compiles it passes through at once.
SPIN = """extern "C" __global__ void spin(long long* passed, const long long ns) {
  unsigned long long start = 0, now = 0;
#ifdef __CUDA_ARCH__
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do { asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); } while (now - start < ns);
#endif
  passed[0] = now - start;
}"""
_WORK_US = (20, 50, 100, 500)
_SHAPE = (3, 32, 32)
_PARTS = ("h2d", "enqueue", "compute", "d2h")
_STREAMS = 4
_IMAGE = (3, 224, 224)
_TOLD = 600  # characters of a failure


def nvml() -> dict[str, Any]:
    """Return what the telemetry reads of each device, and the energy where the board tells it."""
    from trtbench.bench.telemetry import readers_here

    module = load("pynvml")
    found: dict[str, Any] = {"event_reasons": hasattr(module, "nvmlDeviceGetCurrentClocksEventReasons")}
    for reader in readers_here(module):
        energy = getattr(reader, "energy_j", lambda: None)
        reading = dataclasses.asdict(reader.read())
        found[reading["device"]] = {**reading, "energy_j": energy()}
    return found


def facts() -> dict[str, Any]:
    """Return what the device says it is, and the package that asked it."""
    with _device() as cuda:
        return {"package": cuda.package, "stream": cuda.stream, **dataclasses.asdict(cuda.device())}


def clocks_on_short_work(*, samples: int = 2000) -> dict[str, Any]:
    """Time launches of a graph of known length: by the wall, by events one at a time, by events two in flight."""
    found = {}
    with _device() as cuda:
        spin = _spinner(cuda)
        host, device = cuda.pinned(_SHAPE, dtype=np.float32), cuda.allocate(4 * int(np.prod(_SHAPE)))
        for us in _WORK_US:
            plain = functools.partial(spin, us)
            plain()
            cuda.synchronize()
            launch = cuda.capture(plain)
            for _ in range(samples // 7):
                launch()
            cuda.synchronize()
            parts = timed_in_parts(
                cuda,
                upload=cuda.upload(device, host),
                launch=launch,
                download=cuda.download(host, device),
                samples=samples // 4,
            )
            found[f"{us} us"] = {
                "wall_us": _median_us(timed_by_clock(cuda, (launch,), samples=samples)),
                "events_us": _median_us(timed_by_events(cuda, (launch,), samples=samples)),
                "events_depth_2_us": _median_us(_timed_two_in_flight(cuda, launch, samples=samples)),
                **{
                    f"part_{field.name}_us": _median_us(getattr(parts, field.name))
                    for field in dataclasses.fields(parts)
                },
            }
    return found


def one_stream_many_threads(*, rounds: int = 10, requests: int = 200) -> dict[str, Any]:
    """Capture and launch from several threads on one stream, as a load of several streams does with its sessions."""
    errors: list[str] = []
    done = [0] * _STREAMS
    with _device() as cuda:
        spin = _spinner(cuda)
        spin(1)
        cuda.synchronize()

        def serve(thread: int) -> None:
            try:
                with cuda.current():
                    cuda.synchronize()
                    launch = cuda.capture(functools.partial(spin, _WORK_US[0]))
                    for _ in range(requests):
                        launch()
                        cuda.synchronize()
                        done[thread] += 1
            except Exception as error:  # noqa: BLE001  whatever CUDA raises is what is looked for
                errors.append(_told(error))

        for _ in range(rounds):
            threads = [threading.Thread(target=serve, args=(thread,)) for thread in range(_STREAMS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return {"errors": len(errors), "of": rounds * _STREAMS, "first": errors[:2], "requests": done}


def eager_baselines(*, models: tuple[str, ...] = ("resnet18", "mobilenet_v2"), samples: int = 100) -> dict[str, Any]:
    """Time eager as trtbench has it, with cuDNN's autotuner and without, beside what memory host and device tell."""
    import torch
    import torchvision

    from trtbench.bench.worker import _peak_memory_bytes

    found = {}
    for model in models:
        for precision in ("fp32", "tf32", "fp16"):
            is_tf32 = precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_tf32
            for batch in (1, 32):
                for is_tuned in (False, True):
                    torch.backends.cudnn.benchmark = is_tuned
                    torch.cuda.reset_peak_memory_stats()
                    network = getattr(torchvision.models, model)().eval()
                    ns = _timed_eager(network, precision=precision, batch=batch, samples=samples)
                    found[f"{model} {precision} b{batch} {'tuned' if is_tuned else 'as is'}"] = {
                        "p50_ms": _median_us(ns) / 1e3,
                        "device_mb": torch.cuda.max_memory_allocated() / 1e6,
                        "host_mb": (_peak_memory_bytes() or 0) / 1e6,
                    }
    return found


def compile_backend() -> str:
    """Say whether `torch.compile` takes the options that the backend `compile` gives it."""
    import torch

    from trtbench.engines.pytorch import _compiled

    images = torch.zeros(1, 4, device="cuda")
    _compiled(torch.nn.Linear(4, 4).cuda(), images)()
    return f"torch {torch.__version__}: compiled and run"


PROBES: tuple[Callable[[], Any], ...] = (
    *(nvml, facts, clocks_on_short_work, one_stream_many_threads, eager_baselines, compile_backend),
)


def asked(probes: tuple[Callable[[], Any], ...] = PROBES) -> dict[str, Any]:
    """Return what each probe found, or how it failed, and the seconds it took."""
    found: dict[str, Any] = {}
    for probe in probes:
        name, start = getattr(probe, "__name__", "probe"), time.perf_counter()
        try:
            found[name] = probe()
        except Exception as error:  # noqa: BLE001  one fault must not hide what the others find
            found[name] = {"failed": _told(error), "where": traceback.format_exc()[-_TOLD:]}
        found[f"{name}_s"] = time.perf_counter() - start
    return found


@contextmanager
def _device() -> Iterator[Cuda]:
    cuda = open_cuda()
    try:
        with cuda.current():
            yield cuda
    finally:
        cuda.close()


def _spinner(cuda: Cuda) -> Callable[[int], None]:
    """Return what queues so many microseconds of work."""
    kernel = cuda.kernel(SPIN, name="spin")
    if kernel is None:
        raise RuntimeError(f"{cuda.package} compiles no kernel here")
    passed = cuda.allocate(8)
    return lambda us: kernel(1, 1, (passed, us * 1000))


def _timed_two_in_flight(cuda: Cuda, launch: Operation, *, samples: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Time as trtexec does: one launch is queued while the last one runs, and the one before is waited for."""
    pairs = [(cuda.event(), cuda.event()) for _ in range(2)]
    found = []
    for index in range(samples):
        begin, end = pairs[index % 2]
        begin.record()
        launch()
        end.record()
        if index:
            begin, end = pairs[(index - 1) % 2]
            end.handle.synchronize()
            found.append(end.ns_since(begin))
    cuda.synchronize()
    return np.array(found, dtype=np.int64)


def _timed_eager(network: Any, *, precision: str, batch: int, samples: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    import torch

    from trtbench.engines.pytorch import AtPrecision, TorchSession

    session = TorchSession(
        AtPrecision(network, precision=precision).cuda(),
        shape=(batch, *_IMAGE),
        device=torch.device("cuda:0"),
        prepare=functools.partial,
        settings={},
    )
    session.copy_in(np.random.default_rng(0).standard_normal((batch, *_IMAGE), dtype=np.float32))
    session.time(samples // 5)
    found = session.time(samples)
    session.close()
    return found


def _median_us(ns: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    return float(np.median(ns)) / 1e3


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_TOLD]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asked(), indent=1, default=str) + "\n")
