"""Verbs about the machine and one engine file on it: gpu-info, inspect, crosscheck with NVIDIA's trtexec."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.options import EngineArgument, JsonOption  # noqa: TC001  Typer resolves them at run time
from trtbench.cli.screen import say, show, show_json, show_table, warn
from trtbench.errors import SidecarError
from trtbench.foreign import MISFITS
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbench.bench.trtexec import CrossCheck, Figures
    from trtbench.engines.tensorrt.backend import Inspection
    from trtbench.environment import GpuInfo

app = typer.Typer()


@app.command("gpu-info")
def gpu_info_verb(
    *,
    as_json: JsonOption = False,
    require: Annotated[
        str, typer.Option(help="Names joined by commas (gpu, fp16, bf16, int8 ...): exit 5 where one is absent.")
    ] = "",
) -> None:
    """Say what this machine can do, what is installed, and what clashes, with the command that mends it."""
    from trtbench.environment import collect_environment, demand, gpu_info

    environment = collect_environment()
    info = gpu_info(environment)
    if as_json:
        show_json(info)
    else:
        _show_machine(info)
    demand(environment, require=tuple(name.strip() for name in require.split(",") if name.strip()))


def _show_machine(info: GpuInfo) -> None:
    show(info.summary)
    cpu = info.host.cpu
    ram = "" if info.host.ram_bytes is None else f", {info.host.ram_bytes / 2**30:.0f} GiB"
    int8 = (
        "has int8 dot products" if cpu.has_int8_dot else "has no int8 dot products: int8 is slower or less exact here"
    )
    show(f"Host: {info.host.os}, Python {info.host.python}; {cpu.model}, {cpu.logical_cores} cores{ram}; {int8}.")
    for found in info.gpus:
        cells = [(one.name, "yes" if one.is_available else "no", one.reason) for one in found.capabilities]
        memory = "" if found.gpu.memory_bytes is None else f", {found.gpu.memory_bytes / 2**30:.0f} GiB"
        show_table(f"GPU {found.gpu.index}: {found.gpu.name}, SM {found.gpu.sm}{memory}", ("can", "", "because"), cells)
    packages = [(one.module, one.distribution, one.version, one.cuda or "") for one in info.packages]
    show_table("Packages", ("module", "distribution", "version", "CUDA"), packages)
    for clash in info.conflicts:
        show(f"{clash.level}: {clash.what}; {clash.cure}")
    if info.tensorrt_ready:
        show("This machine has all that TensorRT engines need.")
    else:
        show("TensorRT engines need, on this machine:")
        for reason in info.tensorrt_missing:
            show(f"  - {reason}")


@app.command("inspect")
def inspect_verb(*, engine: EngineArgument, as_json: JsonOption = False) -> None:
    """Say what an engine is: precision asked for and achieved, layers, versions, how to build it; or an ONNX file."""
    from trtbench.engines.sidecar import sidecar_path
    from trtbench.engines.tensorrt.backend import inspect_engine

    if engine.suffix == ".onnx" and not sidecar_path(engine).is_file():
        _inspect_graph(engine, as_json=as_json)
        return
    found = inspect_engine(engine)
    if as_json:
        live = {"is_live": found.is_live, "why_not_live": found.why_not_live}
        show_json({"engine": str(found.path), "sidecar": found.sidecar, "layers": dict(found.layers), **live})
        return
    _show_inspection(found)


def _inspect_graph(path: Path, *, as_json: bool) -> None:
    from trtbench.graph.given import describe_onnx

    found = describe_onnx(path)
    if as_json:
        show_json(found)
        return
    kind = "an ONNX graph with Q/DQ pairs of its own" if found.is_quantized else "an ONNX graph"
    show(f"{path}: {kind}, no engine of ours; opset {found.opset}, {found.weight_bytes / 1e6:.2f} MB of weights")
    show_table(
        "Tensors",
        ("", "name, type and shape"),
        [("in", one) for one in found.inputs] + [("out", one) for one in found.outputs],
    )
    show(f"Operators: {', '.join(f'{count} {name}' for name, count in found.operators.items())}")
    show(f"Build it: {found.build}")


@app.command("crosscheck")
def crosscheck_verb(
    *,
    engine: EngineArgument,
    batch: Annotated[int, typer.Option("--batch-size", min=1, help="Images of a request.")] = 1,
    warm_up: Annotated[float, typer.Option(help="Milliseconds of warm-up.")] = 200.0,
    duration: Annotated[float, typer.Option(help="Seconds of timing, on each side.")] = 3.0,
    cuda_graph: Annotated[bool, typer.Option(help="Launch a captured CUDA graph.")] = True,
    spin: Annotated[bool, typer.Option(help="Wait by polling.")] = True,
    trtexec: Annotated[str, typer.Option(help="The trtexec to run.")] = "trtexec",
    as_json: JsonOption = False,
) -> None:
    """Time an engine by NVIDIA's trtexec and by trtbench, with equal flags, and state the difference."""
    from trtbench.bench.trtexec import LIMIT, Flags, crosscheck, find_trtexec
    from trtbench.engines.base import backend
    from trtbench.engines.sidecar import check_engine, read_sidecar

    find_trtexec(trtexec)
    sidecar = read_sidecar(engine)
    check_engine(engine, sidecar, machine=backend(sidecar.backend).facts(sidecar.options).machine)
    flags = Flags(batch=batch, warm_up_ms=warm_up, duration_s=duration, cuda_graph=cuda_graph, spin=spin)
    found = crosscheck(engine, sidecar, flags, executable=trtexec)
    if as_json:
        differences = {"difference": found.difference, "alone_difference": found.alone_difference}
        show_json({**to_jsonable(found), **differences, "is_close": found.is_close})
    else:
        _show_crosscheck(found)
    if not found.is_close:
        warn(f"the figures differ by more than {LIMIT:.0%}; lock the clocks and see that nobody else is on it")


def _show_inspection(found: Inspection) -> None:
    sidecar = found.sidecar
    size, weights = sidecar.engine_bytes / 1e6, sidecar.weight_bytes / 1e6
    show(f"{found.path}: {sidecar.variant}, {size:.2f} MB, {weights:.2f} MB of it weights")
    show(f"Precision: requested {sidecar.shown_precision}, achieved {sidecar.achieved}")
    show(f"Runtime: {sidecar.backend} {sidecar.backend_version} on {sidecar.device}; bound to {sidecar.machine}")
    try:
        _show_facts(found)
    except MISFITS as error:
        raise SidecarError(
            f"sidecar of {found.path}: facts",
            expected="those that its runtime wrote",
            got=f"{type(error).__name__}: {error}",
            cure=f"build it again: `{sidecar.rebuild or 'trtbench build'}`",
        ) from error
    for note in sidecar.notes:
        show(f"note: {note}")
    show(f"Build it again: {sidecar.rebuild or 'trtbench build'}")
    if command := sidecar.facts.get("trtexec"):
        show(f"The same by trtexec: {command}")
    if found.why_not_live:
        say(f"from the sidecar only: {found.why_not_live}")


def _show_facts(found: Inspection) -> None:
    facts = found.sidecar.facts
    for line in (*_layer_lines(found.layers), *_build_lines(facts)):
        show(line)
    if tensors := facts.get("tensors"):
        cells = [(one["name"], one["mode"].lower(), _shape(one["shape"]), one["dtype"]) for one in tensors]
        show_table("Inputs and outputs", ("tensor", "", "shape", "type"), cells)
    if profiles := facts.get("profiles"):
        show_table("Profiles", ("", "input", "smallest", "usual", "largest"), _profile_cells(profiles))


def _layer_lines(layers: Any) -> Iterator[str]:
    if not layers:
        return
    counts = ", ".join(f"{count} {name}" for name, count in layers["by_precision"].items())
    yield f"Layers: {layers['layers']}; computing ones: {counts or 'not told'}; {layers['reformats']} reformat"
    convolutions = layers["convolutions"]
    by_precision = ", ".join(f"{count} {name}" for name, count in Counter(convolutions.values()).items())
    yield f"Convolutions: {by_precision or 'not told'}"
    if layers.get("quantizers"):
        yield f"Q/DQ: {layers['fused_quantizers']} of {layers['quantizers']} fused; {layers['unfused']} are layers"


def _build_lines(facts: Any) -> Iterator[str]:
    if "flags" not in facts:
        return
    typing = "strongly typed" if facts["strongly_typed"] else "weakly typed"
    flags = ", ".join(facts["flags"]) or "none"
    cleared = ", ".join(facts["cleared_flags"]) or "none"
    yield f"Network: {typing}; flags set: {flags}; cleared: {cleared}; level {facts['optimization_level']}"
    software = f"driver {facts['driver']}, CUDA {facts['cuda']}, {facts['os']} {facts['arch']}"
    yield f"Built on: {facts['gpu']} (SM {facts['sm']}), {software}"


def _profile_cells(profiles: Any) -> list[tuple[str, ...]]:
    return [
        (str(index), name, *(_shape(shape) for shape in triple))
        for index, shapes in enumerate(profiles)
        for name, triple in shapes.items()
    ]


def _shape(shape: Any) -> str:
    return "x".join("batch" if size == -1 else str(size) for size in shape)


def _show_crosscheck(found: CrossCheck) -> None:
    headers = ("", "compute median ms", "compute p99 ms", "alone mean ms", "batches/s")
    cells = [_figures("trtbench", found.ours), _figures("trtexec", found.theirs)]
    show_table(f"Batch {found.flags.batch}: on the device, and by the wall clock one at a time", headers, cells, left=1)
    show(f"trtbench's median is {found.difference:+.1%} from trtexec's")
    if found.alone_difference is not None:
        show(f"one at a time, as in a report, it takes {found.alone_difference:+.1%} from what trtexec takes")
    if found.flags.cuda_graph and not found.settings.get("cuda_graph", True):
        why = found.settings.get("cuda_graph_reason", "no reason given")
        show(f"note: trtbench ran without a CUDA graph ({why}), trtexec with one")
    show(f"By hand: {found.command}")


def _figures(who: str, figures: Figures) -> tuple[str, ...]:
    alone = "" if figures.alone_ms is None else f"{figures.alone_ms:.4f}"
    return (who, f"{figures.median_ms:.4f}", f"{figures.p99_ms:.4f}", alone, f"{figures.batches_per_s:.1f}")
