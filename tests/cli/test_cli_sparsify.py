"""`trtbench sparsify` and the further options of `trtbench train`, as people call them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.command import Answer

    Run = Callable[[str], tuple[int, str, str]]

_TINY = "--model tiny_nets:resnet8 --checkpoint net.safetensors --data digits --size 8 --quiet"


@pytest.fixture
def run(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]) -> Run:
    """Run a command line in a folder with a checkpoint; return the exit code, stdout and stderr."""
    monkeypatch.chdir(tiny_weights)
    return lambda arguments: command(*arguments.split())


@pytest.mark.parametrize(
    ("options", "sparsity"),
    [
        ("--method global --sparsity 0.8", 0.8),
        ("--method global --per-round 0.369 --rounds 5", 0.89997),
        ("--method layer --sparsity 0.5 --exclude downsample --exclude fc", 0.4793),
        pytest.param(
            "--method second-order --sparsity 0.6 --scope layer --images 20 --batch-norm keep --passes 0",
            0.6,
            marks=pytest.mark.slow,
        ),
        ("--method nm --pattern 2:4", 0.4992),
    ],
)
def test_sparsify_tells_counts_of_the_saved_file_as_json(
    run: Run, tmp_path: Path, options: str, sparsity: float
) -> None:
    code, out, _ = run(f"sparsify {_TINY} {options} --output sparse.safetensors --json")

    found = json.loads(out)
    assert code == 0
    assert found["sparsity"] == pytest.approx(sparsity, abs=0.003)
    assert 0 <= found["correct"] <= found["total"] == 900
    assert {"seconds", "layers_csv", "plot"} <= found.keys()
    assert {path.name for path in tmp_path.glob("sparse*")} == {
        "sparse.safetensors",
        "sparse.sparsity.csv",
        "sparse.sparsity.png",
    }


def test_sparsify_fine_tunes_and_says_so_in_words(run: Run) -> None:
    code, out, _ = run(
        f"sparsify {_TINY} --method global --sparsity 0.5 --epochs 1 --schedule cubic --ramp 1 --output s.safetensors"
    )

    assert code == 0
    assert "with 50.0" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--method best --sparsity 0.5", "global or layer or second-order or nm"),
        ("--method nm --sparsity 0.5", "--sparsity: expected only without --method nm"),
        ("--method global --sparsity 0.5 --pattern 2:4", "--pattern: expected only with --method nm"),
        ("--method global", "exactly one of sparsity, per_round"),
        ("--method global --sparsity 0.5 --schedule iterative", "fine_tune and method magnitude"),
        ("--method layer --sparsity 0.5 --rounds 3", "rounds with method magnitude, scope global"),
        ("--method nm --pattern 4:4", "N below M"),
    ],
)
def test_sparsify_refuses_what_does_not_fit_together(run: Run, options: str, words: str) -> None:
    code, _, err = run(f"sparsify {_TINY} {options} --output s.safetensors")

    assert code == 2
    assert words in err


def test_train_takes_every_key_of_the_budget_and_tells_the_spread_over_seeds(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "train --model tiny_nets:resnet8 --data digits --size 8 --epochs 1 --seeds 2 --output trained --quiet --json "
        "--set ema=0.5 --set augment.mixup=0.2 --set loss=smooth-l1"
    )

    found = json.loads(out)
    config = json.loads((tmp_path / "trained" / "seed-1" / "config.json").read_text())
    assert code == 0
    assert [one["seed"] for one in found["runs"]] == [0, 1]
    assert found["test"]["ci95"][0] <= found["test"]["mean"] <= found["test"]["ci95"][1]
    text = json.dumps(config)
    assert '"ema": 0.5' in text
    assert '"mixup": 0.2' in text
    assert '"flip": false' in text


def test_a_key_without_a_value_is_refused(run: Run) -> None:
    code, _, err = run("train --model tiny_nets:resnet8 --data digits --output trained --set ema")

    assert code == 2
    assert "KEY=VALUE" in err


def test_sensitivity_scores_each_layer_alone_and_draws_it(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "sensitivity --model tiny_nets:resnet8 --checkpoint net.safetensors --data digits --size 8 --ratio 0.5 "
        "--output layers.csv --json"
    )

    found = json.loads(out)
    assert code == 0
    assert len(found["layers"]) == 9
    assert (tmp_path / "layers.csv").read_text().count("\n") == 10
    assert (tmp_path / "layers.png").exists()
