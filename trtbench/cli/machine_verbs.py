"""Verbs about the machine: gpu-info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trtbench.cli.app import app
from trtbench.cli.screen import show, show_json, show_table

if TYPE_CHECKING:
    from trtbench.environment import GpuInfo


@app.command("gpu-info")
def gpu_info_verb(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
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
        _show(info)
    demand(environment, require=tuple(name.strip() for name in require.split(",") if name.strip()))


def _show(info: GpuInfo) -> None:
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
