"""The GPU as ONNX Runtime's two GPU runtimes name it, asked of the driver's own library: CUDA stays untouched."""

from __future__ import annotations

from trtbench.environment import collect_environment


def gpu_name() -> str:
    """Return the name of the GPU that rows are labelled with; `cuda:0` where none can be used."""
    gpus = collect_environment().usable_gpus
    return gpus[0].name if gpus else "cuda:0"


def gpu_machine() -> str:
    """Return what an engine file is bound to: the GPU, its compute capability and the driver."""
    environment = collect_environment()
    gpus = environment.usable_gpus
    return f"{gpus[0].name}, SM {gpus[0].sm}, driver {environment.driver.version}" if gpus else "no GPU"
