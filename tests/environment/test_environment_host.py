from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import pytest

from trtbench.environment.host import collect_host, container, cpu_flags

if TYPE_CHECKING:
    from pathlib import Path

_XEON = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
cpu MHz\t\t: 2000.5
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx_vnni amx_int8

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8480+
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2

processor\t: 2
model name\t: Intel(R) Xeon(R) Platinum 8480+
physical id\t: 1
core id\t\t: 0
flags\t\t: fpu avx2
"""
_HASWELL = "model name\t: Intel(R) Core(TM) i7-4770\nflags\t\t: fpu sse4_2 avx avx2\n"
_GRAVITON = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp sve i8mm\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "flags", "has_int8_dot"),
    [
        (_XEON, ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"), True),
        (_HASWELL, ("avx2",), False),
        (_GRAVITON, ("i8mm", "dotprod"), True),
        ("Features\t: fp asimd evtstrm aes crc32\n", (), False),  # Cortex-A72
        ("", (), False),
    ],
)
def test_the_flags_that_matter_and_the_int8_dot_product_are_read(
    cpuinfo: str, flags: tuple[str, ...], tmp_path: Path, *, has_int8_dot: bool
) -> None:
    _write(tmp_path, "proc/cpuinfo", cpuinfo)

    cpu = collect_host(root=tmp_path).cpu

    assert cpu.flags == cpu_flags(cpuinfo) == flags
    assert cpu.has_int8_dot is has_int8_dot


def test_a_host_is_described_by_its_files(tmp_path: Path) -> None:
    _write(tmp_path, "proc/cpuinfo", _XEON)
    _write(tmp_path, "proc/meminfo", "MemTotal:       1024 kB\nMemFree:        12 kB\n")
    _write(tmp_path, "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "3100000\n")
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "3800000\n")

    host = collect_host(root=tmp_path)

    assert host.os == "Debian GNU/Linux 12 (bookworm)"
    assert host.ram_bytes == 2**20
    assert host.cpu.model == "Intel(R) Xeon(R) Platinum 8480+"
    assert host.cpu.physical_cores == 2  # three threads on two sockets, two of them on one core
    assert host.cpu.governor == "performance"
    assert (host.cpu.frequency_mhz, host.cpu.max_frequency_mhz) == (3100.0, 3800.0)


def test_the_clock_is_read_from_cpuinfo_where_no_governor_is(tmp_path: Path) -> None:
    _write(tmp_path, "proc/cpuinfo", _XEON)

    cpu = collect_host(root=tmp_path).cpu

    assert (cpu.frequency_mhz, cpu.max_frequency_mhz, cpu.governor) == (2000.5, None, None)


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    host = collect_host(root=tmp_path)

    assert host.os == platform.system()
    assert host.ram_bytes is None
    assert (host.cpu.physical_cores, host.cpu.frequency_mhz) == (None, None)
    assert host.cpu.model


def test_a_system_without_load_and_affinity_is_described_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "getloadavg")
    monkeypatch.delattr(os, "sched_getaffinity")

    host = collect_host(root=tmp_path)

    assert host.load_average is None
    assert host.cpu.affinity == ()


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("proc/1/cgroup", "12:cpu:/kubepods/besteffort/pod1", "kubepods"),
        ("proc/1/cgroup", "0::/lxc/web", "lxc"),
        ("proc/1/cgroup", "0::/init.scope", None),
    ],
)
def test_a_container_is_known_by_its_marks(path: str, text: str, name: str | None, tmp_path: Path) -> None:
    _write(tmp_path, path, text)

    assert container(root=tmp_path, variables={}) == name


def test_a_container_is_known_by_its_variables(tmp_path: Path) -> None:
    assert container(root=tmp_path, variables={"container": "systemd-nspawn"}) == "systemd-nspawn"
    assert container(root=tmp_path, variables={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "kubernetes"


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
