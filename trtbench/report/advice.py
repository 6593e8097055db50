"""What the user can do for steadier numbers, from what the machine did meanwhile; nothing is changed by us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.report.units import significant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbench.rows import Row

_STEAL = 0.01  # a median share of stolen time worth a word
_BUSY = 1.5  # load for each core, above which others use the machine
_WANDERING = 0.9  # a clock whose lowest reading is below this share of the highest


def advice(rows: Sequence[Row], telemetry: Mapping[str, Any], environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each thing that disturbed the measurement and can be mended, and for flagged samples.

    Args:
        rows: every row of the report.
        telemetry: by device, as `bench.telemetry.summary` tells it.
        environment: of the report.
    """
    told = []
    flagged = sum(row.latency.throttled_samples or 0 for row in rows if row.latency is not None)
    if flagged:
        total = sum(row.latency.n for row in rows if row.latency is not None)
        told.append(f"{flagged:,} of {total:,} samples were taken while the machine held back; they are kept.")
    for device, figures in telemetry.items():
        told += _of_cpu(figures, environment) if device == "cpu" else _of_gpu(device, figures)
    return tuple(told)


def _of_cpu(figures: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    told = []
    host = environment.get("host", {})
    cpu = host.get("cpu", {}) if isinstance(host, dict) else {}
    cores = cpu.get("logical_cores") or 1
    if (steal := _median(figures, "steal")) is not None and steal > _STEAL:
        told.append(
            f"The hypervisor gave {significant(100 * steal)} % of the CPU to others: a dedicated host is steadier."
        )
    if (load := _median(figures, "load")) is not None and load > _BUSY * cores:
        told.append(f"Load was {significant(load)} on {cores} cores: other programs ran meanwhile; stop them.")
    governor = cpu.get("governor")
    if governor not in (None, "performance"):
        told.append(f"The CPU governor is {governor}: `sudo cpupower frequency-set -g performance` keeps the clock up.")
    return told


def _of_gpu(device: str, figures: Mapping[str, Any]) -> list[str]:
    told = [
        f"{device} held back for {reason} in {count} of {figures['readings']} readings."
        for reason, count in figures.get("throttled", {}).items()
    ]
    clock = figures.get("clock_mhz")
    if clock and clock["min"] < _WANDERING * clock["max"]:
        index = device.rpartition(" ")[2]
        told.append(
            f"The clock of {device} ran from {significant(clock['min'])} to {significant(clock['max'])} MHz:"
            f" `sudo nvidia-smi -i {index} -lgc <MHz>` locks it below what heat allows, `-rgc` undoes it."
        )
    others = figures.get("other_processes")
    if others and others["max"] > 0:
        told.append(f"Up to {others['max']} other processes computed on {device}: stop them, or use another GPU.")
    return told


def _median(figures: Mapping[str, Any], name: str) -> float | None:
    found = figures.get(name)
    return None if found is None else float(found["median"])
