"""TensorRT for RTX's real parser and builder, each graph in a process of its own.

A refused build for SM75 poisons the next one of its process, and some graphs end the process. This file is both sides:
`compiled` in the test, and what it starts, which imports nothing but the library and forks for each task.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIMIT_S = 300
_KEPT = ("WARNING", "ERROR", "INTERNAL_ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What became of a graph.

    Args:
        exit_code: of the process; below zero a signal ended it.
        is_parsed: the parser took the graph.
        faults: the parser's, as `CODE description`, with the operator it names.
        plan_bytes: of the engine; 0 where there is none.
        layers: the builder's own list of them, as it logs it; "" where there is none.
        log: warnings and errors.
    """

    exit_code: int
    is_parsed: bool = False
    faults: tuple[tuple[str, str], ...] = ()
    plan_bytes: int = 0
    layers: str = ""
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a graph is built.

    Args:
        targets: names of compute capabilities for one engine; none parses only.
        profile: the smallest, usual and largest shape of each input; by default size 1 of each free axis.
        workspace_bytes: the pool's limit.
        cancels: the progress monitor stops the build at its first step.
    """

    targets: tuple[str, ...] = ("SM89",)
    profile: dict[str, list[list[int]]] | None = None
    workspace_bytes: int | None = None
    cancels: bool = False


def compiled(graph: bytes, options: Options | None = None) -> Compiled:
    """Parse a graph and build it."""
    return compiled_together([(graph, options or Options())])[0]


def parsed(graphs: Sequence[bytes]) -> list[Compiled]:
    """Parse graphs one after another in one process: no graph is known to end the parser."""
    return compiled_together([(graph, Options(targets=())) for graph in graphs])


def supported(operators: Sequence[str]) -> list[bool]:
    """Ask the parser which operators it imports."""
    code = (
        "import json, sys, tensorrt_rtx_bindings as trt\n"
        "logger = trt.Logger(trt.Logger.ERROR)\n"
        "parser = trt.OnnxParser(trt.Builder(logger).create_network(), logger)\n"
        "print(json.dumps([parser.supports_operator(name) for name in json.load(sys.stdin)]))"
    )
    asked = json.dumps(list(operators))
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=True)
    answers: list[bool] = json.loads(done.stdout)
    return answers


def compiled_together(tasks: Sequence[tuple[bytes, Options]]) -> list[Compiled]:
    """Parse and build graphs one after another in one process."""
    headers = [{"bytes": len(graph), **asdict(options)} for graph, options in tasks]
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(headers).encode() + b"\n" + b"".join(graph for graph, _ in tasks))
    server.stdin.flush()
    told: list[dict[str, Any]] = [{} for _ in tasks]
    for line in server.stdout:
        part = json.loads(line)
        if "exit_code" in part:
            return [_record(one, exit_code=part["exit_code"]) for one in told]
        told[part.pop("task")] |= part
    raise AssertionError("the process that forks has ended")


@functools.cache
def _server() -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    atexit.register(process.communicate)
    return process


def _record(told: dict[str, Any], *, exit_code: int) -> Compiled:
    faults = tuple((words, operator) for words, operator in told.pop("faults", ()))
    return Compiled(exit_code=exit_code, faults=faults, log=tuple(told.pop("log", ())), **told)


def _compile(number: int, task: dict[str, Any], graph: bytes) -> None:
    """Do a task, and tell what came of it line by line: the process may end before it says more."""
    import tensorrt_rtx_bindings as trt

    log: list[str] = []
    layers: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]  # of a class known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in _KEPT:
                log.append(msg)
            elif msg.startswith("Layers:"):
                layers.append(msg)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    is_parsed = parser.parse(graph)
    faults = [parser.get_error(index) for index in range(parser.num_errors)]
    told = [(f"{fault.code().name} {fault.desc()}", fault.node_operator()) for fault in faults]
    _tell(task=number, is_parsed=is_parsed, faults=told, log=log)
    if is_parsed and task["targets"]:
        config = _configured(trt, builder, network, task)
        if task["cancels"]:
            config.progress_monitor = _canceller(trt)
        plan = builder.build_serialized_network(network, config)
        _tell(task=number, plan_bytes=0 if plan is None else len(bytes(plan)), layers="".join(layers), log=log)


def _configured(trt: Any, builder: Any, network: Any, task: dict[str, Any]) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = len(task["targets"])
    for index, name in enumerate(task["targets"]):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    if shapes := _usual_shapes(network) if task["profile"] is None else task["profile"]:
        profile = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in shapes.items():
            profile.set_shape(name, smallest, usual, largest)
        config.add_optimization_profile(profile)
    if task["workspace_bytes"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, task["workspace_bytes"])
    return config


def _canceller(trt: Any) -> Any:
    class Canceller(trt.IProgressMonitor):  # type: ignore[misc]  # of a class known at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            pass

        def phase_finish(self, phase_name: str) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002  the library's names
            return False

    return Canceller()


def _usual_shapes(network: Any) -> dict[str, list[list[int]]]:
    """Return size 1 for every free axis of the inputs that have one."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {one.name: [[abs(size) for size in one.shape]] * 3 for one in inputs if -1 in tuple(one.shape)}


def _tell(**told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _serve() -> None:
    """Fork for each line of tasks, which has the library imported already."""
    import tensorrt_rtx_bindings  # noqa: F401  each child has it from here

    while line := sys.stdin.buffer.readline():
        tasks = [(task, sys.stdin.buffer.read(task["bytes"])) for task in json.loads(line)]
        child = os.fork()
        if child == 0:
            _work(tasks)
        _tell(exit_code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _work(tasks: Sequence[tuple[dict[str, Any], bytes]]) -> None:
    signal.alarm(_LIMIT_S)
    try:
        for number, (task, graph) in enumerate(tasks):
            _compile(number, task, graph)
    except Exception:  # noqa: BLE001  whatever the library raises is the end of a process
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve()
