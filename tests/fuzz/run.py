"""Thousands of cases, counted: `make fuzz N=10000`; the counts go to stdout as JSON, what failed to stderr."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis

from tests.fuzz.cases import Case, Cases
from tests.fuzz.forked import Outcome, Server

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fuzzing:
    """A server, the valid files, and a folder in which one case after the other is laid out."""

    def __init__(self, root: Path, server: Server) -> None:
        self._server, self._root, self._valid = server, root, root / "valid"
        server.prepare(self._valid)
        self.cases = Cases(self._valid)

    def refused(self, kind: str) -> list[tuple[Case, Outcome]]:
        """Run the valid files of a kind as they are, and return what did not end well: a reader that takes nothing."""
        ended = [(case, self.ended(case)) for case in self.cases.controls()[kind]]
        return [(case, one) for case, one in ended if one.code != 0]

    def outcomes(self, kind: str, count: int, *, seed: int = 0) -> Iterator[tuple[Case, Outcome]]:
        """Run so many cases of a kind, the same ones each time."""
        found: list[tuple[Case, Outcome]] = []

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(self.cases.kinds()[kind])
        def each(case: Case) -> None:
            found.append((case, self.ended(case)))

        each()
        yield from found

    def ended(self, case: Case) -> Outcome:
        """Run one case in a folder of its own, and say too if it wrote outside of it."""
        around = Path(tempfile.mkdtemp(dir=self._root))
        folder = around / "deep" / "here"
        folder.mkdir(parents=True)
        try:
            case.lay_out(folder, self._valid)
            found = self._server.run(case.argv, folder=folder)
            escaped = [
                path for path in around.rglob("*") if folder not in (path, *path.parents) and path != folder.parent
            ]
            if escaped:
                told = f"Traceback (most recent call last): wrote {escaped[0]}"
                return Outcome(code=1, cpu_s=found.cpu_s, bytes=found.bytes, told=told)
            return found
        finally:
            for path in around.rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
            shutil.rmtree(around)


def main() -> None:
    """Count how cases end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--kind", action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the cases that failed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root, Server() as server:
        fuzzing = Fuzzing(Path(root), server)
        kinds = given.kind or list(fuzzing.cases.kinds())
        if unknown := set(kinds) - fuzzing.cases.kinds().keys():
            parser.error(f"--kind {', '.join(sorted(unknown))}: choose from {', '.join(fuzzing.cases.kinds())}")
        each = -(-given.cases // len(kinds))
        counts: dict[str, Any] = {}
        for kind in kinds:
            for case, one in fuzzing.refused(kind):
                sys.exit(f"{kind}: a valid file is refused: {case.argv}: {one.code} {one.told}")
            counts[kind] = _counted(fuzzing, kind, each, given)
            print(kind, counts[kind], file=sys.stderr)  # noqa: T201
    total: Counter[str] = Counter()
    for one in counts.values():
        total.update({key: value for key, value in one.items() if isinstance(value, int)})
    document = {
        "command": shlex.join(["python", "-m", "tests.fuzz.run", *sys.argv[1:]]),
        "seed": given.seed,
        "total": dict(total),
        "kinds": counts,
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    sys.exit(1 if total["failed"] else 0)


def _counted(fuzzing: Fuzzing, kind: str, count: int, given: argparse.Namespace) -> dict[str, Any]:
    codes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    cases = failed = 0
    cpu_s = most = 0.0
    seen: set[str] = set()
    for case, found in fuzzing.outcomes(kind, count, seed=given.seed):
        cases += 1
        codes[str(found.code)] += 1
        cpu_s, most = max(cpu_s, found.cpu_s), max(most, found.bytes)
        faults.update(found.faults)
        failed += bool(found.faults)
        if found.faults and (last := found.told.strip().splitlines()[-1:] or ["nothing"])[0] not in seen:
            seen.add(last[0])
            print(f"{kind}: {found.faults} {found.code} {case.argv}: {last[0][:300]}", file=sys.stderr)  # noqa: T201
            if given.keep:
                _keep(given.keep / f"{kind}-{len(seen)}".replace(" ", "-"), case, found)
    return {
        "cases": cases,
        "failed": failed,
        **{name: faults[name] for name in sorted(faults)},
        "codes": dict(sorted(codes.items())),
        "largest_cpu_s": round(cpu_s, 1),
        "largest_gb": round(most / 1e9, 2),
    }


def _keep(folder: Path, case: Case, found: Outcome) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    words = {"argv": case.argv, "valid": case.valid, "odd": dict(case.odd), "code": found.code, "told": found.told}
    (folder / "CASE.json").write_text(json.dumps(words, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
