"""MLflow: what is logged is read back from a real store."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.errors import CapabilityError, ConfigError
from trtbench.report.mlflow import _flat, _metrics, _tags, _winner, log_to_mlflow
from trtbench.report.tables import row_lines
from trtbench.train import EpochRecord

if TYPE_CHECKING:
    from trtbench.report.document import Report


_QUIET = pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore::ResourceWarning")  # not ours


@pytest.fixture
def mlflow() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, while they are imported
        return pytest.importorskip("mlflow", reason="needs MLflow: pip install 'trtbench[mlflow]'")


def _epoch(number: int) -> EpochRecord:
    return EpochRecord(
        epoch=number, lr=0.1, train_loss=2 / number, train_correct=3, train_total=4, val_loss=3 / number,
        val_correct=1, val_total=2, seconds=1.0,
    )  # fmt: skip


@pytest.mark.slow
@_QUIET
def test_a_run_and_a_run_for_each_row_are_logged(
    mlflow: Any, full_report: Report, report_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    uri = "sqlite:///mlflow.db"

    epochs = [_epoch(number) for number in range(1, 251)]  # more than one request takes
    run_id = log_to_mlflow(full_report, report_folder, uri=uri, curves={"channels-50": epochs})
    again = log_to_mlflow(full_report, report_folder, uri=uri)

    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    winner = next(row for row in full_report.rows if row.name == full_report.decision.winner)
    assert winner.latency
    assert again != run_id
    assert run.info.run_name == full_report.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["bench.batch_sizes"] == "[1, 32]"
    assert run.data.params["variants.1.name"] == "dense-tuned"
    assert run.data.metrics["p50_ms"] == winner.latency.p50_ms
    assert run.data.tags["winner"] == winner.name
    assert run.data.tags["mlflow.note.content"] == full_report.decision.sentence
    kept = {file.path for file in client.list_artifacts(run_id)}
    assert kept == {"report.json", "report.md", "report.html", "report.csv", "plots"}
    below = client.search_runs([run.info.experiment_id], filter_string=f"tags.mlflow.parentRunId = '{run_id}'")
    rows = {one.info.run_name: one for one in below}
    training = rows.pop("train channels-50")
    curve = client.get_metric_history(training.info.run_id, "val_loss")
    assert [(one.step, one.value) for one in curve] == [(one.epoch, one.val_loss) for one in epochs]
    assert training.data.metrics["train_accuracy"] == 0.75
    assert training.data.params == {"variant": "channels-50"}
    assert set(rows) == {row.name for row in full_report.rows}
    assert rows[winner.name].data.metrics["p50_ms"] == winner.latency.p50_ms
    assert rows[winner.name].data.params["precision"] == winner.precision
    assert {one.info.status for one in rows.values() if one.data.params["status"] == "failed"} == {"FAILED"}


@pytest.mark.usefixtures("mlflow")
@_QUIET
def test_a_store_that_cannot_be_is_refused_with_the_cure(full_report: Report, report_folder: Path) -> None:
    with pytest.raises(ConfigError, match="--mlflow nonsense://x"):
        log_to_mlflow(full_report, report_folder, uri="nonsense://x")


def test_without_mlflow_the_cure_is_told(full_report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import of it fails
    with pytest.raises(CapabilityError, match=r"pip install 'trtbench\[mlflow\]'"):
        log_to_mlflow(full_report, tmp_path, uri="sqlite://")


def test_settings_are_told_by_their_path_and_lists_of_plain_values_as_one() -> None:
    nested = {"bench": {"batch_sizes": [1, 32], "noise": None}, "variants": ({"kind": "dense"}, {"ratio": 0.5})}
    assert dict(_flat(nested)) == {
        "bench.batch_sizes": "[1, 32]",
        "bench.noise": "None",
        "variants.0.kind": "dense",
        "variants.1.ratio": "0.5",
    }


def test_the_metrics_of_a_row_are_its_numbers_and_nothing_else(full_report: Report) -> None:
    row = full_report.rows[0]
    assert row.latency
    found = _metrics(row_lines(full_report.rows)[0])
    assert found["p50_ms"] == row.latency.p50_ms
    assert found["engine_bytes"] == row.engine_bytes
    assert {"variant", "batch_size", "simulated", "notes", "anchor"}.isdisjoint(found)
    assert _winner(full_report)["top1"] > 0
    assert _winner(replace(full_report, decision=replace(full_report.decision, winner=None))) == {}
    assert _tags(full_report)["winner"] == full_report.decision.winner


class _RefusedError(Exception):
    """What MLflow raises of every kind."""


class _Client:
    """What a tracking store keeps of one session: the requests, in their order."""

    def __init__(self, tracking_uri: str) -> None:
        if tracking_uri.startswith("nonsense"):
            raise _RefusedError(f"no store: {tracking_uri}")
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        _CLIENTS.append(self)

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = f"experiment of {name}"
        return self.experiments[name]

    def create_run(self, experiment: str, *, start_time: int, run_name: str, tags: dict[str, str]) -> Any:
        kept = {"params": {}, "metrics": [], "tags": tags, "files": [], "status": "", "since": start_time}
        self.runs[run_name] = {"experiment": experiment, **kept}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_batch(self, run_id: str, *, params: Any = (), metrics: Any = ()) -> None:
        assert len(params) <= 100  # as servers refuse more
        assert len(metrics) <= 1000
        self.runs[run_id]["params"] |= dict(params)
        self.runs[run_id]["metrics"] += metrics

    def log_artifact(self, run_id: str, path: str) -> None:
        self.runs[run_id]["files"].append(Path(path).name)

    def log_artifacts(self, run_id: str, folder: str, name: str) -> None:
        self.runs[run_id]["files"] += [f"{name}/{path.name}" for path in Path(folder).iterdir()]

    def set_terminated(self, run_id: str, status: str = "FINISHED") -> None:
        self.runs[run_id]["status"] = status


_CLIENTS: list[_Client] = []


@pytest.fixture
def mlflow_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be MLflow: a real one takes seconds to import, and is tried in the slow test."""
    double = ModuleType("mlflow")
    entities = SimpleNamespace(Param=lambda key, value: (key, value), Metric=lambda *facts: facts)
    facts = {"MlflowClient": _Client, "entities": entities}
    vars(double).update(facts, exceptions=SimpleNamespace(MlflowException=_RefusedError))
    monkeypatch.setitem(sys.modules, "mlflow", double)
    _CLIENTS.clear()


@pytest.mark.usefixtures("mlflow_double")
def test_requests_name_a_run_for_each_row_and_training_below_that_of_the_report(
    full_report: Report, report_folder: Path
) -> None:
    epochs = [replace(_epoch(number), val_loss=math.nan if number == 7 else 1.0) for number in range(1, 251)]

    run_id = log_to_mlflow(full_report, report_folder, uri="http://tracking", curves={"half": epochs})

    (client,) = _CLIENTS
    runs = dict(client.runs)
    whole, training = runs.pop(run_id), runs.pop("train half")
    assert set(client.experiments) == {str(full_report.suite["name"])}
    assert whole["tags"]["winner"] == full_report.decision.winner
    assert whole["params"]["bench.batch_sizes"] == "[1, 32]"
    assert {"report.json", "report.md", "report.html", "report.csv"} <= set(whole["files"])
    assert set(runs) == {row.name for row in full_report.rows}
    assert {one["tags"]["mlflow.parentRunId"] for one in [*runs.values(), training]} == {run_id}
    ended = {row.name: "FAILED" if row.status in {"failed", "oom"} else "FINISHED" for row in full_report.rows}
    assert {name: one["status"] for name, one in runs.items()} == ended
    curve = [(step, value) for key, value, _, step in training["metrics"] if key == "val_loss"]
    assert curve == [(number, 1.0) for number in range(1, 251) if number != 7]
    with pytest.raises(ConfigError, match="--mlflow nonsense://x"):
        log_to_mlflow(full_report, report_folder, uri="nonsense://x")
