"""Builds an engine of TensorRT for RTX in a process of its own; this module is what both sides run.

A build that is refused for one GPU poisons the next one of its process, whose INT8 layers silently become float ones;
and some graphs end the process. The builder's process gets the request and answers in lines of JSON.

Without a GPU no engine can be loaded and inspected, but a build with detailed profiling and a logger that keeps VERBOSE
logs one message that begins with `Layers:`: the inspector's one-line form, a line for each layer. `I/O Tensors:` and
`Engine Metadata:` follow.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trtbench import errors
from trtbench.disk import file_sha256, storing
from trtbench.ending import commands
from trtbench.engines.base import BuildOptions, BuildRequest, BuildResult, partial_path
from trtbench.engines.tensorrt.builder import serialize
from trtbench.engines.tensorrt.inspector import achieved, report_layers
from trtbench.engines.tensorrt.library import Abilities, LogLines, make_logger, stand_in
from trtbench.engines.tensorrt.plan import build_facts, layer_facts
from trtbench.engines.tensorrt.precision import PrecisionPlan, plan_precision
from trtbench.engines.tensorrt.source import read_source
from trtbench.environment.verdicts import RtxTarget
from trtbench.errors import CapabilityError, EngineError, TrtbenchError, UnsupportedError
from trtbench.jsonable import to_jsonable
from trtbench.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


NAMES: tuple[str, ...] = get_args(RtxTarget)
_TURING = "sm75"
_FIRST_FP8 = (8, 9)
# Several targets in one engine cost bytes only; Turing, which lacks most, would be all of them's measure.
USUAL = tuple(name for name in NAMES if name != _TURING)
# What has no effect ahead of time, or needs a GPU's driver to be built.
_WITHOUT_EFFECT = {
    "sparse": "sparse weights change nothing before the GPU's own compilation",
    "hardware_compatible": "name the GPUs by `targets`: one engine is for all of them",
    "version_compatible": "an engine is bound to its version of TensorRT for RTX",
}


def targets_of(options: Sequence[str]) -> tuple[str, ...]:
    """Return the targets asked for, or what is usual, in the order of the silicon."""
    return tuple(name for name in NAMES if name in options) or USUAL


def compute_capability(target: str) -> tuple[int, int]:
    """Return the compute capability of a target: (8, 9) of sm89."""
    number = int(target.removeprefix("sm"))
    return number // 10, number % 10


def told(targets: Sequence[str]) -> str:
    """Return targets as a row names the device that it is for."""
    return "RTX " + ", ".join(targets)


def refuse(precision: str, options: BuildOptions) -> None:
    """Refuse what an engine would lack in silence.

    Raises:
        UnsupportedError: a target lacks the precision, or computes it in floats, or an option has no effect.
    """
    asked, targets = PRECISIONS[precision], targets_of(options.targets)
    if asked.codes == "fp8" and (lacking := [one for one in targets if compute_capability(one) < _FIRST_FP8]):
        what = f"precision {precision!r} for {', '.join(lacking)}"
        able = ", ".join(name for name in NAMES if compute_capability(name) >= _FIRST_FP8)
        raise UnsupportedError(what, got="no FP8 there", cure=f"name GPUs that compute it: `targets: [{able}]`")
    if _TURING in targets and (asked.is_int8 or asked.needs_ampere):
        got = "INT8 convolutions become FP16 or FP32 there" if asked.is_int8 else "no BF16 there"
        cure = "leave sm75 out of the targets, or ask it for fp16"
        raise UnsupportedError(f"precision {precision!r} for sm75", got=got, cure=cure)
    for name, why in _WITHOUT_EFFECT.items():
        if getattr(options, name):
            raise UnsupportedError(f"{name}: true on tensorrt-rtx", got="no effect", cure=f"leave it out; {why}")


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
    sent = json.loads(next(commands(sys.stdin)))
    try:
        _say(channel, **to_jsonable(_build(_request(sent, channel), Path(sent["partial"]))))
    except TrtbenchError as error:
        facts = {"what": error.what, "expected": error.expected, "got": error.got, "cure": error.cure}
        _say(channel, error=(type(error).__name__, facts))
    os._exit(0)  # the library's threads and destructors have nothing left to say


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


HEADING = "Layers:"
_RANK_OF_IMAGES = 4
_LATER_GRAPH = re.compile(r"^Name: .*?\[profile [1-9]\d*\]\S*(_myl\d+_)", re.MULTILINE)
_KEYS = ("Name", "LayerType", "Inputs", "Constants", "Outputs", "TacticName", "StreamId", "EventId", "Metadata")
_KEY = re.compile(rf"(?:^|, )({'|'.join(_KEYS)}): ")
_TENSORS = frozenset({"Inputs", "Constants", "Outputs"})
_TENSOR = re.compile(
    r"\{ Name: (?P<Name>.*?), Dimensions: \[(?P<Dimensions>[\d,-]*)\], .*?Datatype: (?P<Datatype>\w+), "
    r"Format: (?P<Format>.*?) \}"
)


def inspector_json(message: str) -> str:
    """Return what the engine inspector would say of the layers in a message of the builder's logger.

    Each profile is a graph of its own; in the later ones only the layers of ONNX nodes bear a profile's mark, so that
    whole graphs are left out here.
    """
    later = set(_LATER_GRAPH.findall(message))
    lines = message.removeprefix(HEADING).strip().split("\n\n")[0].splitlines()
    layers = [_layer(line) for line in lines if line.startswith("Name: ")]
    return json.dumps({"Layers": [one for one in layers if not any(mark in one["Name"] for mark in later)]})


def pads_a_batch(text: str) -> bool:
    """Say whether an engine, by its inspector's JSON, holds constants of a whole batch.

    Depthwise convolutions in INT8 are computed with more input channels than they have: the others are zeros, stored as
    [batch, channels, 3, height, width] with the pointwise kernel that joins them.
    """
    kernels = [layer for layer in json.loads(text)["Layers"] if layer.get("LayerType") == "kgen"]
    constants = [one for layer in kernels for one in layer.get("Constants", ())]
    return any(one["Datatype"] == "Int8" and len(one["Dimensions"]) > _RANK_OF_IMAGES for one in constants)


def _layer(line: str) -> dict[str, Any]:
    parts = _KEY.split(line)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {key: _tensors(value) if key in _TENSORS else value for key, value in found.items()}


def _tensors(text: str) -> list[dict[str, Any]]:
    found = [match.groupdict() for match in _TENSOR.finditer(text)]
    return [one | {"Dimensions": [int(size) for size in one["Dimensions"].split(",") if size]} for one in found]


if __name__ == "__main__":
    main()
