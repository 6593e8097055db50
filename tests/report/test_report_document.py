"""report.json and report.md: written whole, read strictly, refused kindly."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.errors import ConfigError, StoreError
from trtbench.jsonable import to_jsonable
from trtbench.report import Report, read_report, report_schema, write_report
from trtbench.report.document import schema_text, validate_report
from trtbench.report.markdown import render_markdown
from trtbench.report.remarks import caveats
from trtbench.rows import LoadRecord

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parent / "twenty-four-rows.json"
REPORT = read_report(GOLDEN)


@pytest.mark.usefixtures("unpainted")
def test_a_written_report_reads_back_equal_to_the_last_bit(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    assert read_report(tmp_path) == REPORT
    assert read_report(tmp_path / "report.json") == REPORT
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        "plots/accuracy-latency.png",
        "plots/latency.png",
        "plots/size.png",
        "report.csv",
        "report.html",
        "report.json",
        "report.md",
    ]


def test_the_shipped_schema_is_the_one_of_the_records() -> None:
    shipped = (resources.files("trtbench") / "report" / "schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(), "a record has changed; schema_text's docstring says how to write schema.json again"


def test_the_schema_names_every_field_of_a_report_and_a_row() -> None:
    schema = report_schema()
    assert set(schema["properties"]) == {field.name for field in dataclasses.fields(Report)}
    assert set(schema["$defs"]["Row"]["properties"]) == {field.name for field in dataclasses.fields(REPORT.rows[0])}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Row"]["additionalProperties"] is False


def _without(raw: dict[str, Any]) -> None:
    del raw["rows"][3]["variant"]


def _unknown(raw: dict[str, Any]) -> None:
    raw["rows"][3]["latency"]["p999_ms"] = 1.0


def _text(raw: dict[str, Any]) -> None:
    raw["rows"][3]["latency"]["p50_ms"] = "1.0"


def _precision(raw: dict[str, Any]) -> None:
    raw["rows"][3]["precision"] = "int9"


def _no_list(raw: dict[str, Any]) -> None:
    raw["rows"][3]["other_latencies"] = 1.5


def _overflow(raw: dict[str, Any]) -> None:
    raw["stages"]["train"] = 10**400


def _newer(raw: dict[str, Any]) -> None:
    raw["schema_version"] = "2"


def _older(raw: dict[str, Any]) -> None:
    raw["schema_version"] = 1


def _unversioned(raw: dict[str, Any]) -> None:
    del raw["schema_version"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_without, ["run/report.json: rows.3.variant: expected", "write it again with `trtbench run`"]),
        (_unknown, ["rows.3.latency.p999_ms: expected", "got 1.0", "remove the key"]),
        (_text, ["rows.3.latency.p50_ms: expected a valid number, got '1.0'; mend the value"]),
        (_precision, ["rows.3.precision: expected 'fp32', 'tf32'", "got 'int9'; mend the value"]),
        (_no_list, ["rows.3.other_latencies: expected", "got 1.5"]),
        (_overflow, ["not valid JSON: got a whole number of 401 digits"]),
        (_newer, ["schema_version: expected '1', got '2'; a newer trtbench wrote it; upgrade this one"]),
        (_older, ["schema_version: expected '1', got 1; `trtbench run` writes a report"]),
        (_unversioned, ["schema_version: expected '1', got none"]),
    ],
)
def test_a_damaged_report_names_the_key_and_the_cure(damage: Callable[[dict[str, Any]], None], told: list[str]) -> None:
    raw = json.loads(GOLDEN.read_text(encoding="utf-8"))
    damage(raw)
    with pytest.raises(ConfigError) as caught:
        validate_report(json.dumps(raw), origin="run/report.json")
    assert all(words in str(caught.value) for words in told), str(caught.value)


@pytest.mark.parametrize(
    ("shown", "fields"), [("fp16+sparse", ("fp16", True, 1)), ("int8+fp16+sparse#2", ("int8+fp16", True, 2))]
)
def test_a_row_of_an_older_report_is_read_into_its_fields(shown: str, fields: tuple[str, bool, int]) -> None:
    raw = json.loads(GOLDEN.read_text(encoding="utf-8"))
    first = {name: value for name, value in raw["rows"][0].items() if name not in {"sparse", "build"}}
    raw["rows"][0] = first | {"precision": shown}
    row = validate_report(json.dumps(raw), origin="report.json").rows[0]
    assert (row.precision, row.sparse, row.build) == fields
    assert row.name == f"{first['variant']} {shown} {first['backend']} b{first['batch_size']}"


@pytest.mark.parametrize(("backend", "of_device"), [("tensorrt", True), ("eager", False), ("onnxruntime-cuda", False)])
def test_the_memory_of_an_older_report_is_read_as_that_of_where_its_runtime_took_it(
    backend: str, *, of_device: bool
) -> None:
    raw = to_jsonable(REPORT)
    for key in ("device_memory_bytes", "host_memory_bytes"):
        del raw["rows"][0][key]
    raw["rows"][0] |= {"backend": backend, "memory_bytes": 5}

    row = validate_report(json.dumps(raw), origin="older").rows[0]

    assert (row.device_memory_bytes, row.host_memory_bytes) == ((5, None) if of_device else (None, 5))


def test_the_widths_of_an_older_report_are_read_where_it_calls_them_channels() -> None:
    raw = json.loads(GOLDEN.read_text(encoding="utf-8"))
    del raw["rows"][0]["widths"]
    raw["rows"][0]["channels"] = [16, 8]
    assert validate_report(json.dumps(raw), origin="report.json").rows[0].widths == (16, 8)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": NaN}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"report\.json"):
        validate_report(text, origin="report.json")


def test_a_report_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a report\.json, got No such file"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_report(tmp_path)


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    latency = REPORT.rows[0].latency
    assert latency
    endless = replace(REPORT, rows=(replace(REPORT.rows[0], latency=replace(latency, cov=float("nan"))),))
    with pytest.raises(ConfigError, match="NaN, which JSON does not know"):
        write_report(endless, tmp_path)
    with pytest.raises(ConfigError, match="PosixPath is not JSON serializable"):
        write_report(replace(REPORT, environment={"folder": Path("/")}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_report(REPORT, tmp_path / "file")


def test_the_markdown_says_the_sentence_first_and_everything_it_has() -> None:
    text = render_markdown(REPORT, plots={"plots/a.png": "Accuracy"})
    assert text.startswith(f"# twenty-four-rows\n\n**{REPORT.decision.sentence}**\n\n- channels-50 int8")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[1:] == [
        "## CPU rows, never ranked with GPU rows",
        "### Accuracy and size of each engine",
        "### Latency of each row",
        "### Batch size",
        "## Why not the others",
        "## What these numbers do not say",
        "## Environment",
        "## Suite",
        "## Run",
    ]
    for words in (
        "![Accuracy](plots/a.png)",
        "- 1: 20 of 22 layers run in int8",
        "- channels-25 int8 onnxruntime-cpu b1: takes 1.38 times",
        "- channels-50 int8 onnxruntime-cpu b1: its drop is not proven",
        "Invented numbers",
        "an example CPU",
        "max_drop_pp: 2.0",
        "command: trtbench run quickstart",
        "train: 61.2 s",
    ):
        assert words in text
    assert "b32: measured at batch" not in text


def test_the_markdown_of_rows_that_all_failed_shows_only_why() -> None:
    rows = tuple(replace(row, status="failed", reason="broken", accuracy=None, latency=None) for row in REPORT.rows)
    bare = replace(REPORT.decision, losers=(), pareto=())
    text = render_markdown(replace(REPORT, rows=rows, decision=bare, notes=()))
    assert "### Rows without a result" in text
    assert text.count("| failed   | broken   |") == 24
    assert "CPU rows" not in text
    assert "Why not" not in text
    assert "Notes:" not in text


def test_caveats_say_what_the_rows_cannot() -> None:
    told = " ".join(caveats(REPORT.rows))
    for words in ("nothing about a GPU", "360 test images", "below 0.83 pp", "one build", "fewer than 1,000 samples"):
        assert words in told
    assert "Simulated" not in told
    latency = REPORT.rows[0].latency
    assert latency
    gpu = replace(REPORT.rows[0], device="cuda:0", simulated=True, latency=replace(latency, p99_ms=2.0))
    told = " ".join(caveats([gpu]))
    assert "Simulated" in told
    assert "GPU." not in told
    assert "p99" not in told
    assert not [*caveats([])]


def test_a_report_is_json_all_through() -> None:
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == to_jsonable(REPORT)


@pytest.mark.usefixtures("unpainted")
def test_what_a_row_achieved_and_its_cores_stand_among_its_settings_in_json_only(tmp_path: Path) -> None:
    row = replace(REPORT.rows[0], achieved="int8 in 20 of 22", cores=(3,), settings={"threads": 1})
    write_report(replace(REPORT, rows=(row,)), tmp_path)

    (kept,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["rows"]
    assert kept["settings"] == {"threads": 1, "achieved": "int8 in 20 of 22", "cores": [3]}
    assert read_report(tmp_path).rows == (row,)


def test_a_report_of_before_has_what_a_row_achieved_among_its_settings(tmp_path: Path) -> None:
    raw = json.loads(GOLDEN.read_text(encoding="utf-8"))
    raw["rows"][0] |= {"settings": {"achieved": "fp32", "threads": 1, "cores": [0]}}
    del raw["rows"][0]["achieved"], raw["rows"][0]["cores"]
    (tmp_path / "report.json").write_text(json.dumps(raw), encoding="utf-8")

    found = read_report(tmp_path).rows[0]

    assert (found.achieved, found.cores, found.settings) == ("fp32", (0,), {"threads": 1})


def test_the_markdown_tells_the_worst_class_the_loads_and_what_would_change_the_choice() -> None:
    first = next(row for row in REPORT.rows if row.role == "candidate" and row.accuracy is not None)
    assert first.accuracy is not None
    accuracy = replace(first.accuracy, worst_class="cat", class_drops_pp=(0.0, 12.5), mcnemar_holm_p=0.04, ece=0.0212)
    load = LoadRecord(
        scenario="arrivals",
        streams=1,
        rate=500.0,
        throughput_ips=499.0,
        p50_ms=1.0,
        p90_ms=2.0,
        p99_ms=3.0,
        max_ms=4.0,
        n=1500,
        p99_limit_ms=5.0,
        holds=True,
    )
    rows = (replace(first, accuracy=accuracy, loads=(load, replace(load, rate=None, holds=None))), *REPORT.rows[1:])
    decision = replace(REPORT.decision, what_if=("With max_engine_mb 9 instead of 1, large would win.",))

    text = " ".join(render_markdown(replace(REPORT, rows=rows, decision=decision)).split())

    assert "| cat | 12.50 | 0.040 | 0.021 |" in text
    assert "| arrivals | 1 | 500 | 1500 | 499 | 1.00 | 2.00 | 3.00 | 4.00 | 5.00 | yes |" in text
    assert "| arrivals | 1 | - | 1500 | 499 | 1.00 | 2.00 | 3.00 | 4.00 | 5.00 | - |" in text
    assert "## What would change the choice - With max_engine_mb 9 instead of 1, large would win." in text
