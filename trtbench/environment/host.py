"""The host as the operating system describes it: system, processor, memory, load, container."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.environment.facts import Cpu, Host

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path("/")
# the kernel's name -> ours; on ARM the dot product is called asimddp (arch/arm64/kernel/cpuinfo.c)
_FLAGS = {
    **{name: name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "i8mm")},
    "asimddp": "dotprod",
}
# Without one of these, x86 multiplies int8 pairs with a saturating 16-bit sum (VPMADDUBSW).
_INT8_DOT = {"avx512_vnni", "avx_vnni", "amx_int8", "dotprod"}


def collect_host(*, root: Path = _ROOT) -> Host:
    """Describe this machine; what the system does not tell is None.

    Args:
        root: the folder that stands for "/", under which proc, sys, etc and run are read.
    """
    return Host(
        os=_os_name(root),
        kernel=platform.release(),
        python=platform.python_version(),
        cpu=_cpu(root),
        load_average=os.getloadavg() if hasattr(os, "getloadavg") else None,
        ram_bytes=_ram_bytes(_read(root / "proc/meminfo")),
        container=container(root=root, variables=os.environ),
    )


def cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """Return the flags that matter out of the text of /proc/cpuinfo, in a fixed order."""
    present = set(_field(cpuinfo, "flags|Features").split())
    return tuple(ours for kernels, ours in _FLAGS.items() if kernels in present)


def container(*, root: Path = _ROOT, variables: Mapping[str, str]) -> str | None:
    """Name the container this process runs in, or None for a plain host."""
    if "KUBERNETES_SERVICE_HOST" in variables:
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    found = re.search(r"docker|kubepods|lxc", _read(root / "proc/1/cgroup"))
    return found.group() if found else variables.get("container")


def _cpu(root: Path) -> Cpu:
    cpuinfo = _read(root / "proc/cpuinfo")
    flags = cpu_flags(cpuinfo)
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return Cpu(
        model=_field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        logical_cores=os.cpu_count() or 1,
        physical_cores=_physical_cores(cpuinfo),
        affinity=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
        flags=flags,
        has_int8_dot=not _INT8_DOT.isdisjoint(flags),
        governor=_read(frequency / "scaling_governor").strip() or None,
        frequency_mhz=_mhz(_read(frequency / "scaling_cur_freq")) or _float(_field(cpuinfo, "cpu MHz")),
        max_frequency_mhz=_mhz(_read(frequency / "scaling_max_freq")),
    )


def _physical_cores(cpuinfo: str) -> int | None:
    """Count distinct (socket, core) pairs: hyper-threads share one."""
    cores = set(re.findall(r"^physical id\s*: (\d+)$.*?^core id\s*: (\d+)$", cpuinfo, re.MULTILINE | re.DOTALL))
    return len(cores) or None


def _ram_bytes(meminfo: str) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def _os_name(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(root / "etc/os-release"), re.MULTILINE)
    return found.group(1) if found else platform.system()


def _field(cpuinfo: str, name: str) -> str:
    found = re.search(rf"^(?:{name})[ \t]*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _mhz(khz: str) -> float | None:
    value = _float(khz)
    return None if value is None else value / 1000


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    """Return the text of a file that may be absent or closed to this user."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
