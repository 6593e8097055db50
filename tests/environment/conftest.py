"""Machines made by hand: what the verdicts are fed with instead of this machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trtbench.environment import Cpu, Driver, Environment, Gpu, Host, Package
from trtbench.environment.overview import cuda_of

Machine = Callable[..., Environment]
_CPU = Cpu(model="a processor", architecture="x86_64", logical_cores=16)
_HOST = Host(os="Linux", kernel="6.8", python="3.12.3", cpu=_CPU)
_SM = {
    "H100": (9, 0),
    "B200": (10, 0),
    "L4": (8, 9),
    "A100": (8, 0),
    "T4": (7, 5),
    "V100": (7, 0),
    "GTX 1080": (6, 1),
    "P100": (6, 0),
    "M40": (5, 2),
}


@pytest.fixture
def gpu() -> Callable[..., Gpu]:
    """Make a GPU by its name."""

    def make(name: str, **fields: object) -> Gpu:
        return Gpu(index=0, uuid=f"GPU-{name}", name=name, compute_capability=_SM[name], **fields)  # type: ignore[arg-type]  # fields vary by test

    return make


@pytest.fixture
def machine(gpu: Callable[..., Gpu]) -> Machine:
    """Make a machine of `gpus` (names or records), the driver's `cuda`, and MODULE/DISTRIBUTION==VERSION."""

    def make(
        *packages: str, gpus: tuple[str | Gpu, ...] = (), cuda: tuple[int, int] | None = None, **fields: object
    ) -> Environment:
        return Environment(
            host=_HOST,
            driver=Driver(version="1.0" if cuda else None, cuda=cuda),
            gpus=tuple(gpu(one) if isinstance(one, str) else one for one in gpus),
            packages=tuple(_package(text) for text in ("pynvml/nvidia-ml-py==13.615.71", *packages)),
            **fields,  # type: ignore[arg-type]  # fields vary by test
        )

    return make


def _package(text: str) -> Package:
    """Read MODULE/DISTRIBUTION==VERSION, with torch's CUDA behind the version as in torch/torch==2.15.0+cu132."""
    module, _, rest = text.rpartition("/")
    distribution, _, version = rest.partition("==")
    version, _, local = version.partition("+cu")
    bare = Package(module=module or distribution, distribution=distribution, version=version)
    cuda = f"{local[:2]}.{local[2:]}" if local else cuda_of(bare)
    return Package(module=bare.module, distribution=distribution, version=version, cuda=cuda)
