"""The report and its recommendation as records, their JSON Schema and strict reader; `disk` writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping  # noqa: TC003  pydantic resolves the fields of Report at run time
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from trtbench.errors import ConfigError
from trtbench.foreign import NAME, parse_json, read_file, reason
from trtbench.precision import read_shown
from trtbench.rows import AMONG_SETTINGS, Row
from trtbench.suite import Objective  # noqa: TC001  as above

SCHEMA_VERSION = "1"
_SHOWN = 20  # faults

_CURES = {
    "missing": "the report is not whole; write it again with `trtbench run`",
    "unexpected_keyword_argument": "remove the key, or read the report with the version of trtbench that wrote it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loser:
    """A row that is not recommended, by name, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A `decide.Choice` in words, and the limits it was made for; rows are told by their names.

    `sentence` is the headline, of at most 30 words; `reasons` are what it rests on, a sentence each. `ratio` is the
    runner-up's objective over the winner's. `separable` is False where the interval of that ratio holds 1, None where
    there is no runner-up or no interval. `closest` is named only where nothing qualifies. `pareto` are the comparable
    rows that no other beats in accuracy, latency and size together, latencies that cannot be told apart counting as
    equal. `what_if` says what would change the choice; `undecided` are rows for which the intervals of the times are
    too wide to decide. `engine_path` is the winner's file.
    """

    batch_size: int
    objective: Objective
    max_drop_pp: float
    max_engine_mb: float | None
    sentence: str
    reasons: tuple[str, ...] = ()
    winner: str | None = None
    runner_up: str | None = None
    closest: str | None = None
    separable: bool | None = None
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    pareto: tuple[str, ...] = ()
    losers: tuple[Loser, ...] = ()
    max_p99_ms: float | None = None
    max_memory_mb: float | None = None
    min_throughput: float | None = None
    min_fidelity_db: float | None = None
    max_score_drop: float | None = None
    what_if: tuple[str, ...] = ()
    engine_path: str | None = None
    undecided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run: what was asked, where it ran, every row, the answer, and the seconds each stage took.

    `created` is ISO 8601 as the caller gives it. `environment`, `suite` and `git` hold JSON values only. `telemetry` is
    what each device did meanwhile: how often it was read, its figures, and why it held back. `observations` are what
    compression made worse, by the raw samples; None in reports of before.
    """

    # Rows and records inherit this: an unknown key or a number that JSON does not know is refused.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    run_id: str
    created: str
    argv: tuple[str, ...]
    git: Mapping[str, Any]
    environment: Mapping[str, Any]
    suite: Mapping[str, Any]
    rows: tuple[Row, ...]
    decision: Recommendation
    stages: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    observations: tuple[str, ...] | None = None
    schema_version: str = SCHEMA_VERSION

    @property
    def beaten(self) -> tuple[Loser, ...]:
        """Why each comparable row lost; rows of other batch sizes and baselines are plain from the tables."""
        size = self.decision.batch_size
        names = {row.name for row in self.rows if row.role == "candidate" and row.batch_size == size}
        return tuple(loser for loser in self.decision.losers if loser.name in names)


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of report.json, built from the records; `schema.json` is its copy."""
    schema = _adapter().json_schema()
    where = "https://trtbench.github.io/trtbench/report.schema.json"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": where, **schema}


def schema_text() -> str:
    """Return the text of `schema.json`.

    After a record has changed: `python -c "from trtbench.report.document import schema_text; print(schema_text(),
    end='')" > trtbench/report/schema.json`.
    """
    return json.dumps(report_schema(), indent=2) + "\n"


def validate_report(text: str, *, origin: str) -> Report:
    """Read a report from the text of report.json, taking nothing on trust.

    Raises:
        ConfigError: no JSON, a newer schema, or a value that cannot be; the message names file, key and cure.
    """
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: not valid JSON", got=str(error), cure="`trtbench run` writes a report") from error
    _check_version(raw, origin=origin)
    _lift_into_fields(raw)
    try:
        report = _adapter().validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        more = [f"{origin}: and {len(found) - _SHOWN} faults more"] if len(found) > _SHOWN else []
        raise ConfigError("\n".join([*(_fault(origin, fault) for fault in found[:_SHOWN]), *more])) from error
    for place, what in _nonsense(report):
        raise ConfigError(f"{origin}: {place}", expected=what, cure="mend the value, or run again")
    return report


def read_report(path: str | Path) -> Report:
    """Read report.json, or the one in a run's folder.

    Raises:
        ConfigError: there is none, or it is not a report of this version.
    """
    file = Path(path) / "report.json" if Path(path).is_dir() else Path(path)
    try:
        text = read_file(file).decode()
    except (OSError, ValueError) as error:
        got = reason(error)
        cure = "name a folder under runs/; `trtbench run` writes one"
        raise ConfigError(f"report {str(file)!r}", expected="a report.json", got=got, cure=cure) from error
    return validate_report(text, origin=str(file))


@cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def _lift_into_fields(raw: Any) -> None:
    """Give each row its fields where older reports have them: by other names, among its settings, in its precision."""
    rows = raw.get("rows")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict):
            _rename(row)
            _lift_settings(row)
            _lift_precision(row)
            _forget_settling(row)


def _rename(row: dict[str, Any]) -> None:
    if "channels" in row:
        row.setdefault("widths", row.pop("channels"))
    if "memory_bytes" in row:  # of the device where TensorRT told, else of the process
        is_of_device = str(row.get("backend")).startswith("tensorrt")
        row.setdefault("device_memory_bytes" if is_of_device else "host_memory_bytes", row.pop("memory_bytes"))


def _lift_settings(row: dict[str, Any]) -> None:
    settings = row.get("settings")
    if isinstance(settings, dict):
        among = {name: settings.pop(name) for name in AMONG_SETTINGS if name in settings}
        row |= {name: value for name, value in among.items() if not row.get(name)}


def _lift_precision(row: dict[str, Any]) -> None:
    if not isinstance(row.get("precision"), str):
        return
    precision, sparse, build = read_shown(row["precision"])  # as in "int8+sparse#2"
    if precision == "int8-ort":
        raise ConfigError(
            "a row in int8-ort",
            expected="int8, which on onnxruntime-cpu now is what int8-ort was",
            cure="run the suite again",
        )
    row.update({"sparse": sparse, "build": build} | row | {"precision": precision})


def _forget_settling(row: dict[str, Any]) -> None:
    """Leave out what rows were once called unsettled by, on which nobody acted."""
    others = row.get("other_latencies")
    for latency in (row.get("latency"), *(others if isinstance(others, list) else ())):
        for key in ("halves", "blocks_within", "was_unsettled") if isinstance(latency, dict) else ():
            latency.pop(key, None)


def _nonsense(report: Report) -> Iterator[tuple[str, str]]:
    """Yield where a report says what no run can have found, and what would have made sense."""
    if not isinstance(report.suite.get("name"), str) or not isinstance(report.suite.get("decision", {}), dict):
        yield "suite", "a name, and a decision with keys"
    for index, row in enumerate(report.rows):
        for name, what in _nonsense_of_row(row):
            yield f"rows.{index}.{name}", what


def _nonsense_of_row(row: Row) -> Iterator[tuple[str, str]]:
    for name in ("variant", "backend"):
        if NAME.fullmatch(getattr(row, name)) is None:
            yield name, "a name of letters, digits, . _ + # and -, of which a file's name is made"
    for one in fields(row):
        value = getattr(row, one.name)
        if isinstance(value, (int, float)) and (value < 0 or (one.name in {"batch_size", "build"} and value < 1)):
            yield one.name, "a number that is not negative"
    if (counted := row.accuracy) is not None:
        counts = (counted.correct, counted.lost or 0, counted.gained or 0, *counted.per_class, *counted.class_totals)
        if not 0 <= min(counts) <= max(counts) <= counted.total or not 0 <= counted.top1 <= 1 or not counted.total:
            yield "accuracy", "counts between 0 and the number of images"
    for timed in (row.latency, *row.other_latencies):
        times = () if timed is None else (timed.p50_ms, timed.p90_ms, timed.mean_ms, timed.ms_per_image, timed.n)
        if timed is not None and min(*times, timed.p99_ms or 1, timed.ratio or 1, timed.launches_per_sample) <= 0:
            yield "latency", "times above 0"


def _check_version(raw: Any, *, origin: str) -> None:
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version == SCHEMA_VERSION:
        return
    is_newer = isinstance(version, str) and re.fullmatch("[0-9]{1,9}", version) is not None and version != "0"
    raise ConfigError(
        f"{origin}: schema_version",
        expected=repr(SCHEMA_VERSION),
        got="none" if version is None else repr(version),
        cure="a newer trtbench wrote it; upgrade this one" if is_newer else "`trtbench run` writes a report",
    )


def _fault(origin: str, fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "the whole file"
    expected = fault["msg"].removeprefix("Input should be ")
    got = "" if fault["type"] == "missing" or isinstance(fault["input"], (dict, list)) else f", got {fault['input']!r}"
    return f"{origin}: {key}: expected {expected}{got}; {_CURES.get(fault['type'], 'mend the value, or run again')}"
