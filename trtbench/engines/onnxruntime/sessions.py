"""Opens a session on the provider that was asked for, or says why not; and runs a float graph for calibration."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.data.batches import fed
from trtbench.engines.base import NO_OPTIONS
from trtbench.environment.host import collect_host
from trtbench.errors import EngineError, OutOfMemoryError, ProviderError
from trtbench.graph.reference import onnxruntime, plain_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    Providers = Mapping[str, Mapping[str, str]]  # by name, the wanted one first, with its options
    from collections.abc import Iterator

    import numpy as np
    import onnx
    from numpy.typing import NDArray


CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_LIBRARIES = {CUDA: "cuda", TENSORRT: "tensorrt"}
_FELL_BACK = "fallback to CPU EP has been explicitly disabled"
_CURE = "`trtbench gpu-info` names what is missing here and the command that brings it"


def session_options(level: str, settings: Mapping[str, Any] = NO_OPTIONS) -> Any:
    """Return the options of a session: one thread between operators, and `threads` and `spin` of the settings."""
    options = plain_options(level, threads=settings.get("threads", 1))
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.get("spin") else "0")
    if settings.get("x64quantprecision"):
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def start(ort: Any, source: Path | bytes, options: Any, *, providers: Providers) -> Any:
    """Open a session and prove that it runs where it was asked to: ONNX Runtime falls back in silence.

    Args:
        ort: the module.
        source: the file, or its bytes.
        options: of the session.
        providers: the wanted one first; the others take what it does not.

    Raises:
        ProviderError: all of the graph, or some of it, would run elsewhere.
        EngineError: the graph is refused.
        OutOfMemoryError: it does not fit.
    """
    name = source.name if isinstance(source, Path) else "the graph"
    wanted = next(iter(providers))
    if wanted != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(
            str(source) if isinstance(source, Path) else source,
            options,
            providers=list(providers),
            provider_options=[dict(one) for one in providers.values()],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        told = " ".join(str(error).split())
        if _FELL_BACK in told:
            raise _elsewhere(name, wanted, got=f"{CPU} for some of its nodes") from error
        kind = OutOfMemoryError if "alloc" in told.lower() else EngineError
        raise kind(f"ONNX Runtime cannot load {name}", got=told, cure="build it again") from error
    if (used := session.get_providers()[0]) != wanted:
        raise _elsewhere(name, wanted, got=used)
    return session


def _elsewhere(name: str, wanted: str, *, got: str) -> ProviderError:
    return ProviderError(f"engine {name}: provider", expected=wanted, got=got, cure=_CURE)


def require_provider(ort: ModuleType, provider: str, *, load: Callable[..., Any] = ctypes.CDLL) -> None:
    """Load the library of a GPU provider, so that what it lacks is told by name.

    ONNX Runtime itself writes the reason to standard error and opens a session on the CPU. The libraries of CUDA that
    pip packages bring are loaded first, as ONNX Runtime's documentation asks for.

    Raises:
        ProviderError: it, or a library it links, cannot be loaded.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each library that is missing
        ort.preload_dlls()
    for name, mode in (("shared", ctypes.RTLD_GLOBAL), (_LIBRARIES[provider], ctypes.RTLD_LOCAL)):
        found = next((Path(str(ort.__file__)).parent / "capi").glob(f"*onnxruntime_providers_{name}.*"), None)
        if found is None:
            raise ProviderError("ONNX Runtime", expected=provider, got="its package for the CPU", cure=_CURE)
        try:
            load(str(found), mode=mode)
        except OSError as error:
            raise ProviderError("ONNX Runtime", expected=provider, got=str(error), cure=_CURE) from error


def weight_bytes(graph: Path) -> int:
    """Return the bytes of the tensors inside an ONNX file."""
    import onnx

    return sum(onnx.numpy_helper.to_array(item).nbytes for item in onnx.load(graph).graph.initializer)


_WORKERS = 4  # batches of activations at a time: more than counting them keeps up with would only take memory


def iterate_activations(
    graph: onnx.ModelProto, tensors: tuple[str, ...], batches: Iterator[NDArray[np.float32]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run a float graph over batches and yield the values of the tensors named, one batch at a time.

    A few batches ahead are computed, a core each, while the caller looks at one. No other is kept, so memory does not
    grow with their number.

    Args:
        graph: it is not changed.
        tensors: their names; inputs may be among them.
        batches: float32 (N, C, H, W), or records of tensors.
    """
    import onnx

    ort = onnxruntime()
    proto = deepcopy(graph)
    known = {output.name for output in proto.graph.output}
    inputs = {item.name for item in proto.graph.input}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in known | inputs)
    workers = min(_WORKERS, os.cpu_count() or 1)
    session = _session(ort, proto.SerializeToString())
    name = session.get_inputs()[0].name
    computed = [tensor for tensor in tensors if tensor not in inputs]

    def run(batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        given = fed(batch, name)
        values = dict(zip(computed, session.run(computed, given), strict=True)) if computed else {}
        return {tensor: given[tensor] if tensor in given else values[tensor] for tensor in tensors}

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[dict[str, NDArray[np.float32]]]] = deque()
        for batch in batches:
            ahead.append(pool.submit(run, batch))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _session(ort: Any, graph: bytes) -> Any:
    """Open a session; where its fastest form is refused, one level below.

    On AVX-512 the highest level blocks convolutions by channels, twice as fast, and may lose an output of an odd width
    ("Failed to find node output").
    """
    settings = {"threads": 1, "x64quantprecision": not collect_host().cpu.has_int8_dot}
    try:
        return start(ort, graph, session_options("ORT_ENABLE_ALL", settings), providers={CPU: {}})
    except EngineError:
        return start(ort, graph, session_options("ORT_ENABLE_EXTENDED", settings), providers={CPU: {}})
