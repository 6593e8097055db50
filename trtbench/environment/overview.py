"""The environment as it is collected, its packages included, and what `gpu-info` answers of it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench import _optional
from trtbench.environment.facts import Environment, GitState, Package
from trtbench.environment.gpus import collect_gpus
from trtbench.environment.host import collect_host
from trtbench.environment.verdicts import Capability, Conflict, capabilities, conflicts, missing_for_tensorrt, no_gpu
from trtbench.errors import CapabilityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType

    from trtbench.environment.facts import Driver, Gpu, Host


# torch-pruning's __version__ lies (1.6.0 in 1.6.1), so versions come from metadata only.
_MODULES = (
    "trtbench",
    "torch",
    "torchvision",
    "torch_pruning",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "cupy",
    "pycuda",
    "pynvml",
    "numpy",
)
# where a build writes down its CUDA: module -> (file, what stands before the version)
_BUILD_FILES = {
    "torch": ("torch/version.py", r"^cuda\b.*=\s*'([\d.]+)'"),
    "onnxruntime": ("onnxruntime/capi/build_and_package_info.py", r"^cuda_version\s*=\s*'([\d.]+)'"),
}
_FIRST_ONNXRUNTIME_OF_CUDA_13 = (1, 27)


def collect_packages(providers: Mapping[str, Iterable[str]] | None = None) -> tuple[Package, ...]:
    """List the distributions of interest; nothing is imported.

    Args:
        providers: module -> distributions that provide it; by default those that are installed.
    """
    if providers is None:
        return _installed(_with_listings())
    return tuple(_package(module, name) for module in _MODULES for name in sorted(set(providers.get(module, ()))))


def cuda_of(package: Package, *, build_file: str = "") -> str | None:
    """Return the CUDA a package was built for: from its build file's text, its name, or its version."""
    named = re.search(r"(?:cuda|cu)(\d\d)x?\b", package.distribution)
    written = re.search(_BUILD_FILES[package.module][1], build_file, re.MULTILINE) if build_file else None
    if written:
        return written.group(1)
    if named:
        return named.group(1)
    if package.distribution == "onnxruntime-gpu":
        return "13" if package.release >= _FIRST_ONNXRUNTIME_OF_CUDA_13 else "12"
    return None


def _with_listings() -> tuple[str, ...]:
    """Return the folders of the path where packages are installed: a folder of a suite's code brings none."""
    return tuple(folder for folder in sys.path if next(Path(folder).glob("*.*-info"), None))


@functools.lru_cache(maxsize=1)
def _installed(_path: tuple[str, ...]) -> tuple[Package, ...]:
    """Read the listings of all installed packages, which takes half a second, once while the path stays as it is."""
    return collect_packages(metadata.packages_distributions())


def _package(module: str, name: str) -> Package:
    distribution = metadata.distribution(name)
    bare = Package(module=module, distribution=_normalised(name), version=distribution.version)
    return replace(bare, cuda=cuda_of(bare, build_file=_build_file(distribution, module)))


def _build_file(distribution: metadata.Distribution, module: str) -> str:
    if module not in _BUILD_FILES:
        return ""
    path = Path(str(distribution.locate_file(_BUILD_FILES[module][0])))
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _normalised(name: str) -> str:
    """Spell a distribution's name in one way (PEP 503): tensorrt_cu12 is tensorrt-cu12."""
    return re.sub(r"[-_.]+", "-", name).lower()


_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


def collect_environment(*, folder: Path = Path(), nvml: Any | None = None) -> Environment:
    """Describe this machine, its driver, its GPUs and the installed packages, in well under a second.

    CUDA is not initialised and neither torch nor ONNX Runtime is imported.

    Args:
        folder: the working directory whose git commit is recorded.
        nvml: the module to ask about GPUs; `pynvml` by default, where it is installed.
    """
    driver, gpus = collect_gpus(nvml_here() if nvml is None else nvml)
    return Environment(
        host=collect_host(),
        driver=driver,
        gpus=gpus,
        packages=collect_packages(),
        git=git_state(folder),
        cuda_visible_devices=os.environ.get(_VISIBLE),
        cuda_device_order=os.environ.get(_ORDER),
    )


def number_gpus_by_bus() -> None:
    """Let CUDA number the GPUs as NVML and nvidia-smi do, in this process and in those it starts.

    Its own order is by speed, so that `cuda:1`, or CUDA_VISIBLE_DEVICES=1, would be another GPU than the one that is
    named and metered by that number. Whoever set the order keeps it.
    """
    os.environ.setdefault(_ORDER, "PCI_BUS_ID")


@contextlib.contextmanager
def using_gpu(device: str | None) -> Iterator[None]:
    """Let this process, and those it starts, see one GPU alone: what every runtime then uses is its first.

    Args:
        device: `cuda:N`, among those visible in the order of nvidia-smi, or the UUID of a GPU or of a MIG slice, or
            the start of one; None leaves all visible, and the first is used.

    Raises:
        CapabilityError: there is no such GPU, or CUDA is in use already, which looks at its devices once.
    """
    number_gpus_by_bus()
    if device is None:
        yield
        return
    environment = collect_environment()
    uuid = _uuid_of(device, environment)
    if is_cuda_in_use() and not environment.usable_gpus[0].answers_to(uuid):
        cure = "choose it in a fresh process, or set CUDA_VISIBLE_DEVICES before anything computes on a GPU"
        raise CapabilityError(f"device {device}", expected="CUDA not in use yet", got="another GPU in use", cure=cure)
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = uuid
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before


def is_cuda_in_use() -> bool:
    """Say whether torch has started CUDA in this process."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _uuid_of(device: str, environment: Environment) -> str:
    """Return the whole UUID that CUDA_VISIBLE_DEVICES takes."""
    gpus = environment.usable_gpus
    number = device.removeprefix("cuda:")
    if number.isdecimal() and int(number) < len(gpus):
        return gpus[int(number)].uuid
    slices = [one.uuid for gpu in gpus for one in gpu.mig_slices]
    found = [uuid for uuid in (*(gpu.uuid for gpu in gpus), *slices) if uuid.startswith(device)]
    if len(found) == 1 and device.startswith(("GPU-", "MIG-")):
        return found[0]
    known = ", ".join(f"cuda:{index} {gpu.name} {gpu.uuid}" for index, gpu in enumerate(gpus)) or "no GPU"
    raise CapabilityError(
        f"device {device}",
        expected="one of this machine's GPUs",
        got=known if len(found) < 2 else "the start of several UUIDs",  # noqa: PLR2004  several
        cure="`nvidia-smi -L` lists them; check CUDA_VISIBLE_DEVICES",
    )


def git_state(folder: Path) -> GitState | None:
    """Return commit and dirty flag of the checkout around `folder`; None outside a checkout or without git."""
    # No optional locks: a report must not get in the way of a commit under way.
    command = ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain=v2", "--branch", "-uno"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        return None
    headers = dict(line.split(" ", 2)[1:] for line in answer.stdout.splitlines() if line.startswith("# "))
    commit = headers["branch.oid"]
    return GitState(
        commit=None if commit == "(initial)" else commit,
        is_dirty=any(not line.startswith("# ") for line in answer.stdout.splitlines()),
    )


def nvml_here() -> ModuleType | None:
    """Return the module `pynvml` of nvidia-ml-py, or None where it is not installed."""
    return _optional.load("pynvml") if _optional.is_installed("pynvml") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """One GPU and what it can do."""

    gpu: Gpu
    capabilities: tuple[Capability, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInfo:
    """What this machine can do for trtbench; `summary` says it in one sentence.

    `tensorrt_missing` names what stands between this machine and a TensorRT engine, each with its cure.
    """

    summary: str
    host: Host
    driver: Driver
    gpus: tuple[GpuReport, ...]
    packages: tuple[Package, ...]
    conflicts: tuple[Conflict, ...]
    tensorrt_ready: bool
    tensorrt_missing: tuple[str, ...]


def gpu_info(environment: Environment) -> GpuInfo:
    """Judge an environment: capabilities, conflicts, and whether TensorRT engines can be built."""
    lacks = missing_for_tensorrt(environment)
    return GpuInfo(
        summary=_summary(environment),
        host=environment.host,
        driver=environment.driver,
        gpus=tuple(GpuReport(gpu=gpu, capabilities=capabilities(gpu)) for gpu in environment.gpus),
        packages=environment.packages,
        conflicts=conflicts(environment),
        tensorrt_ready=not lacks,
        tensorrt_missing=tuple(f"{lack.reason}: {lack.cure}" for lack in lacks),
    )


def _summary(environment: Environment) -> str:
    gpus, driver = environment.usable_gpus, environment.driver
    if not gpus:
        reason = no_gpu(environment, name="gpu").reason
        return f"No GPU can be used ({reason}): engines run on the CPU with ONNX Runtime (onnxruntime-cpu)."
    names = ", ".join(f"{gpu.name} (SM {gpu.sm})" for gpu in gpus)
    cuda = "an unknown CUDA" if driver.cuda is None else "CUDA {}.{}".format(*driver.cuda)
    return f"{len(gpus)} usable GPU{'s' if len(gpus) > 1 else ''}: {names}; driver {driver.version} runs up to {cuda}."
