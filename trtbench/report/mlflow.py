"""A report as MLflow keeps it: a run with the suite and the files, and below it one for each row and each training."""

from __future__ import annotations

import math
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trtbench import _optional
from trtbench.errors import ConfigError
from trtbench.jsonable import without_secrets
from trtbench.report.columns import COLUMN, COLUMNS
from trtbench.report.tables import row_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from trtbench.report.columns import Line
    from trtbench.report.document import Report
    from trtbench.train import EpochRecord

_PARAMS_AT_ONCE = 100  # MLflow's limit of one request
_EPOCHS_AT_ONCE = 100  # each has five metrics, and a request takes 1,000
_LONGEST = 500  # characters of a parameter's value that servers of every version take
_FILES = ("report.json", "report.md", "report.html", "report.csv")
_NAMING = ("variant", "precision", "sparse", "rescued", "build", "backend", "device", "batch_size", "role", "status")


def log_to_mlflow(
    report: Report, folder: Path, *, uri: str, curves: Mapping[str, Sequence[EpochRecord]] = MappingProxyType({})
) -> str:
    """Log a report that stands in a folder, and return the id of its run.

    The experiment bears the suite's name. The run has the suite as parameters, the winner's numbers as metrics and the
    report's files as artifacts; each row is a run below it, with its numbers as metrics, and each network that learnt
    is one with its losses and accuracies by epoch.

    Args:
        report: what to log.
        folder: where its files are.
        uri: the tracking server or store, e.g. sqlite:///mlflow.db or http://localhost:5000.
        curves: the epochs of each training, by the name of its variant.

    Raises:
        CapabilityError: MLflow is not installed.
        ConfigError: the store cannot be reached or refuses.
    """
    mlflow = _optional.load("mlflow")
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        name = str(report.suite.get("name", report.run_id))
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        since = int(datetime.fromisoformat(report.created).timestamp() * 1000)
        run = client.create_run(experiment, start_time=since, run_name=report.run_id, tags=_tags(report))
        run_id = str(run.info.run_id)
        _log(mlflow, client, run_id, params=dict(_flat(report.suite)), metrics=_winner(report), since=since)
        for line in row_lines(report.rows):
            _log_row(mlflow, client, line, parent=(experiment, run_id), since=since)
        for variant, epochs in curves.items():
            _log_training(mlflow, client, variant, epochs, parent=(experiment, run_id), since=since)
        _log_files(client, run_id, folder)
        client.set_terminated(run_id)
    except mlflow.exceptions.MlflowException as error:
        cure = "check the URI, and that the server is up; the report itself is written"
        what, got = without_secrets((f"--mlflow {uri}", str(error)))
        raise ConfigError(what, expected="a tracking store", got=got, cure=cure) from error
    return run_id


def _tags(report: Report) -> dict[str, str]:
    commit = report.git.get("commit")
    tags = {"mlflow.note.content": report.decision.sentence, "winner": report.decision.winner or ""}
    return tags | ({"mlflow.source.git.commit": str(commit)} if commit else {})


def _log_row(mlflow: Any, client: Any, line: Line, *, parent: tuple[str, str], since: int) -> None:
    experiment, run_id = parent
    row = line.row
    tags = {"mlflow.parentRunId": run_id} | ({"reason": row.reason} if row.reason else {})
    run = client.create_run(experiment, start_time=since, run_name=row.name, tags=tags)
    params = {key: str(COLUMN[key].value(line)) for key in _NAMING}
    _log(mlflow, client, run.info.run_id, params=params, metrics=_metrics(line), since=since)
    client.set_terminated(run.info.run_id, status="FAILED" if row.status in {"failed", "oom"} else "FINISHED")


def _log_training(
    mlflow: Any, client: Any, variant: str, epochs: Sequence[EpochRecord], *, parent: tuple[str, str], since: int
) -> None:
    """Log a training by epoch."""
    experiment, run_id = parent
    run = client.create_run(
        experiment, start_time=since, run_name=f"train {variant}", tags={"mlflow.parentRunId": run_id}
    )
    client.log_batch(run.info.run_id, params=[mlflow.entities.Param("variant", variant)])
    for start in range(0, len(epochs), _EPOCHS_AT_ONCE):
        metrics = [
            mlflow.entities.Metric(key, value, since, one.epoch)
            for one in epochs[start : start + _EPOCHS_AT_ONCE]
            for key, value in _learnt(one).items()
            if math.isfinite(value)
        ]
        client.log_batch(run.info.run_id, metrics=metrics)
    client.set_terminated(run.info.run_id)


def _learnt(epoch: EpochRecord) -> dict[str, float]:
    return {
        "lr": epoch.lr,
        "train_loss": epoch.train_loss,
        "train_accuracy": epoch.train_correct / epoch.train_total,
        "val_loss": epoch.val_loss,
        "val_accuracy": epoch.val_correct / epoch.val_total,
    }


def _log(
    mlflow: Any, client: Any, run_id: str, *, params: Mapping[str, str], metrics: Mapping[str, float], since: int
) -> None:
    entities = mlflow.entities
    logged = [entities.Param(key, value[:_LONGEST]) for key, value in params.items()]
    for start in range(0, len(logged), _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=logged[start : start + _PARAMS_AT_ONCE])
    client.log_batch(run_id, metrics=[entities.Metric(key, value, since, 0) for key, value in metrics.items()])


def _log_files(client: Any, run_id: str, folder: Path) -> None:
    for name in _FILES:
        client.log_artifact(run_id, str(folder / name))
    if (folder / "plots").is_dir():
        client.log_artifacts(run_id, str(folder / "plots"), "plots")


def _winner(report: Report) -> dict[str, float]:
    winner = next((line for line in row_lines(report.rows) if line.row.name == report.decision.winner), None)
    return {} if winner is None else _metrics(winner)


def _metrics(line: Line) -> dict[str, float]:
    """Return every number of a row, as report.csv has it."""
    shown = [column for column in COLUMNS if "csv" in column.shown_in and column.key not in _NAMING]
    values = {column.key: column.value(line) for column in shown}
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, text) of each leaf of nested settings, e.g. ("variants.0.kind", "dense")."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(one, dict) for one in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{prefix}.{index}")
    else:
        yield prefix, str(value)
