"""Builds an engine of TensorRT for RTX in a process of its own; this module is what both sides run.

A build that is refused for one GPU poisons the next one of its process, whose INT8 layers silently become float ones;
and some graphs end the process. The builder's process gets the request and answers in lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench import errors
from trtbench.engines.base import BuildOptions, BuildRequest, BuildResult, partial_path
from trtbench.engines.tensorrt.builder import serialize
from trtbench.engines.tensorrt.inspector import achieved, report_layers
from trtbench.engines.tensorrt.library import Abilities, LogLines, make_logger, stand_in
from trtbench.engines.tensorrt.plan import build_facts, layer_facts
from trtbench.engines.tensorrt.precision import PrecisionPlan, plan_precision
from trtbench.engines.tensorrt.source import read_source
from trtbench.engines.tensorrt_rtx.layer_text import HEADING, inspector_json, pads_a_batch
from trtbench.engines.tensorrt_rtx.target import compute_capability, refuse, targets_of
from trtbench.errors import CapabilityError, EngineError, TrtbenchError
from trtbench.jsonable import to_jsonable
from trtbench.precision import PRECISIONS
from trtbench.store import file_sha256, storing

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "tensorrt_rtx_bindings"
_MAJOR = "1."
# Said after every error on a machine without a driver, and whenever two of the library's objects live at once.
_NOISE = re.compile(r"catchCudaError|differs from one already registered")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
_ALLOWED_SHARE = 2  # of the weights in a file that is all there is to it
_FP8_NOTE = (
    "FP8 on TensorRT for RTX: a kernel that rescales follows each convolution, and NVIDIA's guide names FP8 for matrix "
    "products only; it may be slower than fp16"
)
_INT8_NOTE = (
    "INT8 on TensorRT for RTX: a kernel that rescales follows each convolution, NVIDIA's support matrix does not list "
    "INT8 convolutions, and it may be slower than fp16"
)


def version_here() -> str:
    """Return the version of the library, without importing it here.

    Raises:
        CapabilityError: it is absent, broken, or of another major.
    """
    from trtbench import _optional

    found = str(_optional.load(PACKAGE).__version__)
    if not found.startswith(_MAJOR):
        raise CapabilityError("TensorRT for RTX", expected="1.x", got=found, cure="pip install 'trtbench[rtx]'")
    return found


def build_apart(request: BuildRequest) -> BuildResult:
    """Build `request.engine` in another process.

    Raises:
        UnsupportedError: a target cannot compute the precision, or an option has no effect.
        GraphError: the graph is not of the precision's types, breaks a rule, or cannot be parsed; by node.
        EngineError: the builder failed, or ended its process.
        OutOfMemoryError: memory ran out.
        StoreError: the engine cannot be written.
    """
    refuse(request.precision, request.options)
    partial = partial_path(request.engine)
    with storing(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trtbench.engines.tensorrt_rtx.build"]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                answer = _answer(process, request, partial)
            finally:
                process.kill()
        result = _read(answer, process.returncode, request)
        with storing(request.engine):
            partial.replace(request.engine)
    finally:
        partial.unlink(missing_ok=True)
    return result


def _answer(process: subprocess.Popen[str], request: BuildRequest, partial: Path) -> dict[str, Any]:
    """Send the request, tell of progress, and return the last word; {} where the process ends without one."""
    assert process.stdin is not None
    assert process.stdout is not None
    fields = ("source", "engine", "precision", "options")
    sent = {**{name: getattr(request, name) for name in fields}, "partial": partial}
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(
            json.dumps(to_jsonable(sent), default=str) + "\n"
        )  # left open: the builder ends with this process
        process.stdin.flush()
    for line in process.stdout:
        told: dict[str, Any] = json.loads(line)
        if "phase" not in told:
            process.wait()
            return told
        if request.on_progress is not None:
            request.on_progress(told["phase"], told["share"])
    process.wait()
    return {}


def _read(answer: dict[str, Any], exit_code: int, request: BuildRequest) -> BuildResult:
    if "error" in answer:
        kind, facts = answer["error"]
        raise getattr(errors, kind)(facts.pop("what"), **facts)
    if not answer:
        name = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        what = f"TensorRT for RTX on {request.source.name}"
        raise EngineError(what, got=f"its builder's process ended: {name}", cure="try another precision or exporter")
    return BuildResult(**{**answer, "notes": tuple(answer["notes"])})


def main() -> None:
    """Be the builder's process: read a request from standard input, answer on standard output."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the library prints is no answer
    sent = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _say(channel, **to_jsonable(_build(_request(sent, channel), Path(sent["partial"]))))
    except TrtbenchError as error:
        facts = {"what": error.what, "expected": error.expected, "got": error.got, "cure": error.cure}
        _say(channel, error=(type(error).__name__, facts))
    os._exit(0)  # the library's threads and destructors have nothing left to say


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _request(sent: dict[str, Any], channel: Any) -> BuildRequest:
    options = sent["options"]
    tuples = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    return BuildRequest(
        source=Path(sent["source"]),
        engine=Path(sent["engine"]),
        precision=sent["precision"],
        options=replace(BuildOptions(**{**options, **tuples}), timing_cache=None),  # one has no effect here
        on_progress=lambda phase, share: _say(channel, phase=phase, share=share),
    )


def _say(channel: Any, **told: Any) -> None:
    channel.write(json.dumps(told) + "\n")
    channel.flush()


@dataclass(slots=True)
class _Told:
    """What the builder logs of the engine it makes."""

    layers: str = ""
    weight_bytes: int = 0
    activation_bytes: int = 0

    def __call__(self, message: str) -> None:
        if message.startswith(HEADING):
            self.layers = message
        elif found := _WEIGHTS.search(message):
            self.weight_bytes = int(found.group(1))
        elif found := _ACTIVATIONS.search(message):
            self.activation_bytes = max(self.activation_bytes, int(found.group(1)))


def _build(request: BuildRequest, partial: Path) -> BuildResult:
    version = version_here()
    stand_in(PACKAGE)
    targets = targets_of(request.options.targets)
    plan = plan_precision(
        request.precision,
        abilities=Abilities(version=version, has_calibrator=False, has_weak_typing=False),
        options=request.options,
        compute_capability=compute_capability(targets[0]),
    )
    source = read_source(request.source, plan)
    lines, told = LogLines(noise=_NOISE), _Told()

    @contextlib.contextmanager
    def beside(_builder: Any, config: Any, _parsed: Any) -> Iterator[None]:
        _name_targets(config, targets)
        yield

    built = serialize(request, plan, source, lines=lines, logger=make_logger(lines, listen=told), beside=beside)
    with storing(partial):
        partial.write_bytes(built.data)
    layers = inspector_json(told.layers)
    report = report_layers(layers, convolutions=source.convolutions)
    words, notes = achieved(report, precision=plan.precision, target=plan.target)
    facts = {
        **build_facts(plan, request.options, profiles=built.profiles),
        "tensorrt_rtx": version,
        "targets": targets,
        "onnx_sha256": file_sha256(source.path),
        "layers": layer_facts(report, quantizers=source.quantizers),
        "activation_bytes": told.activation_bytes,
        "warnings": list(built.warnings[:20]),
    }
    notes = (*notes, *_notes(plan, len(built.data), told.weight_bytes, is_padded=pads_a_batch(layers)))
    return BuildResult(achieved=words, weight_bytes=told.weight_bytes, facts=facts, notes=notes)


def _name_targets(config: Any, targets: tuple[str, ...]) -> None:
    """Tell the builder which GPUs the engine is for."""
    import tensorrt_rtx_bindings as rtx

    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        if not config.set_compute_capability(getattr(rtx.ComputeCapability, name.upper()), index):
            raise EngineError(f"target {name}", got="refused by TensorRT for RTX", cure="leave it out of the targets")


def _notes(plan: PrecisionPlan, file_bytes: int, weight_bytes: int, *, is_padded: bool) -> Iterator[str]:
    if codes := PRECISIONS[plan.precision].codes:
        yield _INT8_NOTE if codes == "int8" else _FP8_NOTE
    if weight_bytes and file_bytes > _ALLOWED_SHARE * weight_bytes:
        rest = "kernels, and zeros that pad depthwise convolutions over a whole batch" if is_padded else "kernels"
        yield f"{weight_bytes} of the file's {file_bytes} bytes are weights; the rest is {rest}"


if __name__ == "__main__":
    main()
