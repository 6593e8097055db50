"""Kill `trtbench build` at random moments, run it again to its end, and compare with a build left in peace.

    python tests/kill_and_resume.py --suite quickstart --times 20 --output kills.json

Exits 1 where rows, structure, accuracy counts or artefact hashes differ; timings and timestamps are not compared.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_NOT_COMPARED = {"build_s", "seconds", "resumed_from"}  # what a clock decides


def main() -> int:
    """Run the comparison and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="quickstart")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--longest", type=float, default=0.0, help="seconds before a kill at most; 0: a fitting share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = compare(
            arguments.suite,
            Path(folder),
            times=arguments.times,
            longest=arguments.longest,
            seed=arguments.seed,
        )
    text = json.dumps(seen, indent=1)
    sys.stdout.write(text + "\n")
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0 if seen["is_equal"] else 1


def compare(suite: str, folder: Path, *, times: int, longest: float, seed: int) -> dict[str, Any]:
    """Build in peace and under kills, bench both, and say whether they agree and where they do not."""
    peace, killed = folder / "peace", folder / "killed"
    start = time.monotonic()
    _run("build", suite, peace)
    whole_s = time.monotonic() - start
    longest = longest or max(2.0, 0.2 * whole_s)
    moments = _kill(suite, killed, times=times, longest=longest, seed=seed)
    _run("build", suite, killed)
    for place in (peace, killed):
        _run("bench", suite, place)
    first, second = state(peace), state(killed)
    differing = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
    return {
        "suite": suite,
        "build_s": round(whole_s, 1),
        "kills": len(moments),
        "killed_after_s": [round(moment, 2) for moment in moments],
        "compared": len(first),
        "differing": differing,
        "is_equal": not differing and len(moments) == times,
    }


def state(folder: Path) -> dict[str, Any]:
    """Return all of a finished folder that must not depend on interruptions, by name."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "engines").rglob("*.json")):
        sidecar = json.loads(path.read_text())
        found[f"sidecar {path.name}"] = {key: value for key, value in sidecar.items() if key not in _NOT_COMPARED}
    for path in sorted((folder / "calib").glob("*.json")):
        found[f"manifest {path.name}"] = path.read_text()
    for path in sorted((folder / "runs" / ".store").glob("*/*/artefact.json")):
        listing = json.loads(path.read_text())
        found[f"artefact {path.parent.parent.name}/{path.parent.name}"] = listing["files"]
    partial = [*(folder / "runs" / ".store").glob("*/*.partial"), *folder.glob("runs/.store/*/*/.*.partial")]
    found["half made artefacts"] = [path.name for path in partial]
    report = json.loads((folder / "runs" / "latest" / "report.json").read_text())
    for row in report["rows"]:
        name = " ".join(str(row[key]) for key in ("variant", "precision", "backend", "batch_size"))
        same = ("status", "role", "params", "macs", "engine_bytes", "weight_bytes", "engine_sha256", "accuracy")
        found[f"row {name}"] = {key: row[key] for key in same}
    return found


def _kill(suite: str, folder: Path, *, times: int, longest: float, seed: int) -> list[float]:
    """Start a build and kill it after a random while until that many were killed; return the moments."""
    moments: list[float] = []
    pick = random.Random(seed)
    for _ in range(10 * times):
        if len(moments) == times:
            break
        moment = pick.uniform(0.2, longest)
        process = subprocess.Popen(_command("build", suite, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            moments.append(moment)
        _, words = process.communicate()
        if process.returncode not in {0, -signal.SIGKILL}:
            raise SystemExit(f"a build ended with {process.returncode}: {words.decode()[-2000:]}")
    return moments


def _run(verb: str, suite: str, folder: Path) -> None:
    subprocess.run(_command(verb, suite, folder), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _command(verb: str, suite: str, folder: Path) -> list[str]:
    folders = ["--out", str(folder / "runs"), "--engines", str(folder / "engines"), "--calib", str(folder / "calib")]
    return [sys.executable, "-m", "trtbench", verb, suite, *folders, "--quiet"]


if __name__ == "__main__":
    sys.exit(main())
