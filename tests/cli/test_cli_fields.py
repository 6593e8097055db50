"""Options made from a suite's parts: every key is reachable, and what does not apply is refused for being given."""

from __future__ import annotations

import inspect
import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any, get_args

import pytest
import typer

from trtbench import suite
from trtbench.cli import main
from trtbench.cli.given import Given, Only, Verb, takes
from trtbench.cli.main import verbs
from trtbench.cli.options import BENCH, CALIBRATION, DATA, FINE_TUNE, MODEL
from trtbench.errors import ConfigError
from trtbench.suite import DataConfig, options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import BaseModel

    from tests.command import Answer

# verb -> the parts it is the step of
_STEPS: dict[str, tuple[type[BaseModel], ...]] = {
    "bench": (suite.BenchConfig,),
    "build": (suite.EngineConfig,),
    "calibrate": (suite.CalibrationConfig,),
    "dynamic-int8": (suite.ExportConfig,),
    "explain-int8": (suite.CalibrationConfig,),
    "export": (suite.ExportConfig,),
    "prune": (suite.ChannelsVariant,),
    "qat": (suite.CalibrationConfig, suite.TrainConfig, suite.ExportConfig),
    "quantize": (suite.FixedPointVariant, suite.TrainConfig),
    "recommend": (suite.DecisionConfig,),
    "sparsify": (suite.WeightsVariant, suite.NmVariant, suite.TrainConfig),
    "train": (suite.TrainConfig,),
}
# What makes a variant one of its suite is told by the verb and by --epochs.
_OF_SUITES = {"kind", "name", "after", "fine_tune", "budget"}
# verb -> keys that its own options tell, or that mean nothing where one engine is measured
_OTHERWISE = {
    "bench": {"load", "alive", "baselines", "baseline_precisions"},
    "sparsify": {"method"},
}


def _verb(name: str) -> Verb:
    verb = verbs()[name].registered_commands[0].callback
    assert isinstance(verb, Verb)
    return verb


def _leaves(part: Any, within: str = "") -> Iterator[str]:
    for name, field in part.model_fields.items():
        inner = next(
            (one for one in (field.annotation, *get_args(field.annotation)) if hasattr(one, "model_fields")), None
        )
        yield from [f"{within}{name}"] if inner is None else _leaves(inner, f"{within}{name}.")


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in _STEPS.items() for part in parts])
def test_every_key_of_a_part_is_an_option_of_its_step(name: str, part: type[BaseModel]) -> None:
    verb = _verb(name)
    keys = {key for option in verb.options().values() for key in option.keys}
    places = [section.key for section in verb.sections if section.part == part.__name__]

    unreachable = [leaf for leaf in _leaves(part) if not any(f"{place}.{leaf}" in keys for place in places)]

    assert places
    assert {leaf.partition(".")[0] for leaf in unreachable} <= _OF_SUITES | _OTHERWISE.get(name, set())


@pytest.mark.parametrize("name", [name for name in verbs() if name not in {"bench", "recommend"}])
def test_every_step_takes_any_key_of_a_suite(name: str) -> None:
    verb = verbs()[name].registered_commands[0].callback
    if isinstance(verb, Verb):
        assert verb._place("data.validation") == "data.validation"
        assert verb._place("export.opset") == "export.opset"
        assert "keys" in inspect.signature(verb).parameters


@pytest.mark.parametrize("name", sorted(_STEPS))
def test_an_option_has_no_default_of_its_own_and_says_what_it_is(name: str) -> None:
    command = typer.main.get_command(verbs()[name])
    generated = _verb(name).options()

    for parameter in command.params:
        if parameter.name in generated:
            assert parameter.default is None
            assert len(str(getattr(parameter, "help", ""))) > 5, parameter.name


def test_an_option_with_a_rule_is_not_there_unless_it_is_given() -> None:
    for app in verbs().values():
        for command in app.registered_commands:
            assert command.callback is not None
            for parameter in inspect.signature(command.callback).parameters.values():
                if any(isinstance(one, Only) for one in get_args(parameter.annotation)[1:]):
                    assert parameter.default is None


@pytest.fixture
def refused(command: Callable[..., Answer]) -> Callable[[str], str]:
    """Run a command line that is refused, and return what it says."""

    def run(arguments: str) -> str:
        told = command(*arguments.split())
        assert told.code == 2
        return told.err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("bench quickstart --warm-up 0", "--warm-up: expected only with --engine"),
        ("bench quickstart --duration 0", "--duration: expected only with --engine"),
        ("bench quickstart --no-spin --scenario streams:1", "--spin, --scenario: expected only with --engine"),
        ("bench quickstart --set warm_up=0", "--set: expected only with --engine"),
        ("bench --engine e.onnx --mlflow sqlite://", "--mlflow: expected only without --engine"),
        ("build quickstart --set export.opset=18", "--set: expected only with --model"),
        (
            "calibrate --model m --output o --from-cache c --set per_class=3",
            "--set: expected only without --from-cache",
        ),
        ("sparsify --model m --output o --method nm --set data.size=x", "data.size: expected a number of pixels"),
        ("build quickstart --no-sparse", "--sparse: expected only with --model"),
        (
            "calibrate --model m --output o --from-cache c --no-equalise",
            "--equalise: expected only without --from-cache",
        ),
        ("explain-int8 quickstart --no-allow-short", "--allow-short: expected only with --model"),
        ("sparsify --model m --output o --scope layer", "--scope: expected only with --method second-order"),
        ("sparsify --model m --output o --second-order", "--second-order: expected only with --method nm"),
        ("sparsify --model m --output o --method nm --ramp 1", "--ramp: expected only without --method nm"),
        ("sparsify --model m --output o --sparsity 0.5 --lr 0.1", "--lr: expected only with --epochs"),
        ("train --model resnet20 --output o --epochs 1 --set epochs=2", "expected each key once"),
        ("train --model resnet20 --output o --set augment=2 --set augment.flip=true", "expected keys under augment"),
        ("train --model resnet20 --output o --set ema=[1", "expected a value in YAML, got '[1'"),
        ("train --model resnet20 --output o --set magic=1", "expected no such key"),
        ("evaluate --model resnet20 --set data.seed=x", "data.seed: expected a valid integer"),
        ("build --model resnet20 --profile 1,b,8", "expected whole numbers joined by commas, got '1,b,8'"),
    ],
)
def test_what_does_not_apply_is_refused_for_being_given(
    refused: Callable[[str], str], arguments: str, words: str
) -> None:
    assert words in refused(arguments)


def _given(*arguments: str) -> Given:
    """Run a verb of several parts and return what it was given."""
    found: list[Given] = []

    @takes(FINE_TUNE, CALIBRATION, BENCH, DATA, MODEL)
    def verb(given: Given, *, own: Annotated[int, typer.Option()] = 3) -> None:
        """Take it."""
        assert own == 3
        found.append(given)

    app = typer.Typer()
    app.command()(verb)
    app(["--model", "resnet20", *arguments], standalone_mode=False)
    return found[0]


def test_what_is_not_given_is_as_in_a_suite_that_says_nothing() -> None:
    made = _given("--epochs", "3").suite(model={"train": {"epochs": 1}})

    assert (made.fine_tune.epochs, made.fine_tune.lr) == (3, suite.Suite.model_fields["fine_tune"].default.lr)
    assert made.calibration == suite.CalibrationConfig()


def test_several_values_are_joined_by_commas_or_the_option_is_repeated() -> None:
    found = _given(
        "--bench-batch-size",
        "1,4",
        "--bench-batch-size",
        "8",
        "--mean",
        ".1,.2,.3",
        "--exclude",
        "a,b",
        "--scopes",
        "device",
    ).values

    assert found["bench.batch_sizes"] == [1, 4, 8]
    assert found["data.mean"] == [0.1, 0.2, 0.3]
    assert found["calibration.exclude"] == ["a,b"]  # a name may have one
    assert found["bench.scopes"] == ["device"]


def test_fields_of_one_name_are_told_apart_but_the_seed_is_one() -> None:
    found = _given("--batch-size", "64", "--calibration-batch-size", "4", "--seed", "7", "--no-augment-flip").values

    assert found["fine_tune.batch_size"] == 64
    assert found["calibration.batch_size"] == 4
    assert (found["fine_tune.seed"], found["calibration.seed"]) == (7, 7)
    assert found["fine_tune.augment.flip"] is False
    assert "data.seed" not in found


def test_a_key_is_of_the_first_part_that_has_it_or_named_from_the_top() -> None:
    keys = ("batch_size=8", "augment.mixup=0.2", "percentile=99", "calibration.batch_size=2", "data.mean=[1, 2, 3]")
    found = _given(*(word for key in keys for word in ("--set", key)))

    assert found.values == {
        "model.name": "resnet20",
        "fine_tune.batch_size": 8,
        "fine_tune.augment.mixup": 0.2,
        "calibration.percentile": 99,
        "calibration.batch_size": 2,
        "data.mean": [1, 2, 3],
    }
    assert found.section("fine_tune")["augment"] == {"mixup": 0.2}


def test_a_value_of_a_wrong_kind_is_told_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"command line: size: expected .*greater than 0, or height"):
        _given("--size", "-1").part("data", DataConfig)


def test_the_help_of_an_option_is_its_fields_description(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trtbench", "calibrate", "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main()
    told = " ".join(capsys.readouterr().out.split())

    assert "How activations become scales" in told
    assert "percentile, entropy, mse). [default: auto]" in told
    assert "--equalise / --no-equalise" in told


def test_bits_are_a_number_or_a_word() -> None:
    option = _verb("quantize").options()["bits"]

    assert json.dumps([option.read(text) for text in ("4", "ternary")]) == '[4, "ternary"]'
    assert options(suite.FixedPointVariant, kind="fixed_point", name="q", bits=option.read("4")).bits == 4


def test_the_line_of_a_step_gives_the_same_suite_again() -> None:
    found: list[Given] = []

    @takes(MODEL, DATA, CALIBRATION)
    def verb(given: Given) -> None:
        found.append(given)

    asked = {
        "model.name": "onnx:/my nets/a.onnx",
        "model.weights_from": "3",  # YAML would read a number
        "model.checkpoint": "it's.pt",
        "data.mean": [0.5, 0.4, 0.3],
        "data.std": [1.0, 1.0, 1.0],
        "calibration.equalise": True,
        "engines.precisions": ["int8"],
    }
    suite = Given(values=asked).suite()
    program, name, *rest = shlex.split(suite.origin)
    assert (program, rest[::2]) == ("--model", ["--set"] * (len(asked) - 1))
    unsaid: dict[str, Any] = dict.fromkeys(inspect.signature(verb).parameters)
    verb(**{**unsaid, "model": name, "keys": rest[1::2]})
    assert found[0].suite() == suite
