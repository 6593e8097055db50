"""A suite is validated once; each fault is told with file, key, expectation, finding and cure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trtbench.errors import ConfigError
from trtbench.suite import (
    BenchConfig,
    ChannelsVariant,
    Proposal,
    Suite,
    adhoc_suite,
    load_suite,
    options,
    parse_suite,
    shipped_suites,
    suite_schema,
    suite_template,
)
from trtbench.suite import DataConfig as _Data

_MODEL = "model: {name: resnet20, train: {epochs: 1}}\n"
_VARIANTS = "variants: [{kind: dense, name: dense}]\n"
_GOOD = "name: mine\n" + _MODEL + _VARIANTS


def test_a_short_suite_is_complete() -> None:
    suite = parse_suite(_GOOD, origin="s.yaml")

    assert suite.bench.batch_sizes == (1, 32)
    assert suite.builds_int8


@pytest.mark.parametrize(("kind", "lr"), [("dense", 0.01), ("qat", 0.001), ("fixed_point", 0.002)])
def test_what_a_budget_does_not_say_is_as_in_a_suite_without_one(kind: str, lr: float) -> None:
    variants = f"variants: [{{kind: {kind}, name: a, fine_tune: true}}]\n"

    said = parse_suite(f"name: mine\n{_MODEL}{variants}fine_tune: {{epochs: 3, momentum: 0.8}}\n", origin="s.yaml")

    silent = parse_suite(f"name: mine\n{_MODEL}{variants}", origin="s.yaml").fine_tune
    assert said.fine_tune == silent.model_copy(update={"epochs": 3, "momentum": 0.8})
    assert said.fine_tune.lr == lr


@pytest.mark.parametrize("name", shipped_suites())
def test_every_shipped_suite_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", "/shared")  # suites of real images name it, and no file is read here

    assert load_suite(name).name == name


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (_GOOD + "bogus: 1\n", "bogus", "no such key"),
        (_GOOD + "data: {sorce: digits}\n", "data.sorce", "no such key"),
        (_GOOD + "calibration: {per_class: 0}\n", "calibration.per_class", "greater than 0, got 0"),
        (_GOOD + "bench: {batch_sizes: [-1]}\n", "bench.batch_sizes.0", "greater than 0, got -1"),
        (_GOOD + "bench: {batch_sizes: one}\n", "bench.batch_sizes", "got 'one'"),
        (_GOOD + "bench: {duration: '3'}\n", "bench.duration", "got '3'"),
        (_GOOD + "calibration: {weights: 1}\n", "calibration.weights", "got 1"),
        (_GOOD + "calibration: {per_class: true}\n", "calibration.per_class", "got True"),
        (_GOOD + "bench: {spin: 'yes'}\n", "bench.spin", "got 'yes'"),
        (_GOOD + "bench: {batch_sizes: [1, 1]}\n", "bench.batch_sizes", "each only once"),
        (_GOOD + "data: {validation: 1.0}\n", "data.validation", "less than 1"),
        (_GOOD + "data: {source: mnist}\n", "data.source", "images:PATH or npz:PATH, got 'mnist'"),
        (_GOOD + "data: {source: 'folder:'}\n", "data.source", "folder:PATH"),
        (_GOOD + "fine_tune: {epochs: many}\n", "fine_tune.epochs", "got 'many'"),
        (_GOOD + "data: {mean: [0.5]}\n", "data", "mean and std together"),
        (_GOOD + "data: {mean: [0.5], std: [0.5, 0.5]}\n", "data", "3 numbers in mean and in std"),
        (_GOOD + "data: {mean: [0.5, 0.5, 0.5], std: [1, 1, 0]}\n", "data", "every std greater than 0"),
        (_GOOD + "calibration: {per_class: 1, total: 10}\n", "calibration", "per_class or total"),
        (_GOOD + "decision: {batch_size: 7}\n", "the whole file", "decision.batch_size 7"),
        (_GOOD + "fine_tune: {lr: .nan}\n", "fine_tune.lr", "finite number"),
        ("name: mine\n" + _VARIANTS, "model", "this key, got nothing"),
        ("name: mine\nmodel: {name: resnet20}\n" + _VARIANTS, "model", "untrained weights answer nothing"),
        (
            "name: mine\nmodel: {name: resnet20, checkpoint: a.pt, train: {epochs: 1}}\n" + _VARIANTS,
            "model",
            "not both",
        ),
        ("name: mine\nmodel: {name: resnett20, train: {epochs: 1}}\n" + _VARIANTS, "model.name", "resnet20"),
        ("name: mine\n" + _MODEL + "variants: []\n", "variants", "at least 1"),
        ("name: mine\n" + _MODEL + "variants: [{kind: magic, name: a}]\n", "variants.0", "'dense', 'channels'"),
        ("name: mine\n" + _MODEL + "variants: [{name: a}]\n", "variants.0", "kind"),
        (
            "name: mine\n" + _MODEL + "variants: [{kind: channels, name: a, ratio: 1.2}]\n",
            "variants.0.ratio",
            "less than 1, got 1.2",
        ),
        (
            "name: mine\n" + _MODEL + "variants: [{kind: channels, name: a}]\n",
            "variants.0",
            "exactly one of ratio, macs, params",
        ),
        (
            "name: mine\n" + _MODEL + "variants: [{kind: dense, name: a}, {kind: dense, name: a}]\n",
            "the whole file",
            "a stands twice",
        ),
        (
            "name: mine\n" + _MODEL + "variants: [{kind: dense, name: a}, {kind: dense, name: A}]\n",
            "the whole file",
            "A, a stands twice",  # where files of these names would be one
        ),
    ],
)
def test_each_fault_names_file_key_finding_and_cure(text: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_suite(text, origin="s.yaml")

    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert re.match(rf"s\.yaml(:\d+:\d+)?: {re.escape(key)}: expected", lines[0])
    assert words in lines[0]
    assert lines[0].count(";") >= 1


_LINES = """\
name: mine
model: {name: resnet20, train: {epochs: 1}}
variants:
  - {kind: dense, name: dense}
  - kind: channels
    name: cut
    ratio: 1.2
    rato: 0.5
bench:
  batch_sizes: [1, -1]
  warm_up: soon
"""


def test_each_fault_names_its_line_and_column() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_suite(_LINES, origin="s.yaml")

    places = [line.split(": expected")[0] for line in str(caught.value).splitlines()]
    assert places == [
        "s.yaml:7:5: variants.1.ratio",
        "s.yaml:8:5: variants.1.rato",
        "s.yaml:10:20: bench.batch_sizes.1",
        "s.yaml:11:3: bench.warm_up",
    ]


def test_a_key_that_is_missing_is_placed_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match=r"s\.yaml:3:3: variants\.0\.name: expected this key"):
        parse_suite("name: mine\nvariants:\n- {kind: dense}\nmodel: {name: onnx:a}\n", origin="s.yaml")


def test_all_faults_are_told_at_once() -> None:
    text = _GOOD + "bogus: 1\ncalibration: {per_class: 0}\n"

    with pytest.raises(ConfigError) as caught:
        parse_suite(text, origin="s.yaml")

    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("text", "words"), [("a: [", "not valid YAML"), ("- 1", "a mapping"), ("", "a mapping")])
def test_what_is_no_mapping_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_suite(text, origin="s.yaml")


def test_a_missing_file_names_the_shipped_suites() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        load_suite("no-such-suite.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match="UTF-8"):
        load_suite(path)


def test_relative_paths_are_taken_from_the_suite_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    model = "model: {name: resnet20, checkpoint: weights/a.pt}\n"
    path.write_text(
        "name: mine\ndata: {source: 'folder:images'}\n" + model + _VARIANTS + "calibration: {manifest: m.json}\n"
    )

    suite = load_suite(path)

    assert suite.model.checkpoint == tmp_path / "weights/a.pt"
    assert suite.data.source == f"folder:{tmp_path}/images"
    assert suite.calibration.manifest == tmp_path / "m.json"


def test_a_variable_in_a_path_is_that_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: mine\nmodel: {name: resnet20, checkpoint: '${WEIGHTS}/a.pt'}\n" + _VARIANTS)

    with pytest.raises(ConfigError, match=r"model\.checkpoint: expected the variable WEIGHTS to be set"):
        load_suite(path)
    monkeypatch.setenv("WEIGHTS", "/weights")

    assert load_suite(path).model.checkpoint == Path("/weights/a.pt")
    assert load_suite(path).as_written()["model"]["checkpoint"] == "${WEIGHTS}/a.pt"


@pytest.mark.parametrize("checkpoint", [None, Path("a.pt")])
def test_the_template_is_a_valid_suite(checkpoint: Path | None) -> None:
    weights = {"train": {"epochs": 1}} if checkpoint is None else {"checkpoint": checkpoint}
    asked = adhoc_suite(model={"name": "resnet20", **weights}, data={"source": "digits", "size": 16})
    text = suite_template(Proposal(suite=asked, reasons={"size": "measured"}, per_class=7), base=Path())

    assert "  size: 16  # measured\n" in text
    suite = parse_suite(text, origin="template")
    graph = adhoc_suite(model={"name": "onnx:m.onnx"}, data={"source": "folder:photos"})
    text = suite_template(Proposal(suite=graph, reasons={}, per_class=7), base=Path("sub"))
    assert (': "onnx:../m.onnx"' in text, ': "folder:../photos"' in text) == (True, True)

    assert [one.kind for one in parse_suite(text, origin="template").variants] == ["dense"]
    own = Proposal(suite=graph, reasons={}, per_class=7, is_quantized=True)
    text = suite_template(own, base=Path("sub"))
    assert [one.kind for one in parse_suite(text, origin="template").variants] == ["dense", "stripped"]

    assert suite.model.checkpoint == checkpoint
    assert suite.model.name == "resnet20"


def test_a_single_step_is_a_suite_of_one_dense_variant() -> None:
    def named(checkpoint: str) -> Suite:
        return adhoc_suite(model={"name": "torchvision:resnet18", "checkpoint": Path(checkpoint)}, data=_Data(size=8))

    suite = named("a.pt")
    assert suite.data.size == 8
    assert suite.name.startswith("torchvision-resnet18-")
    assert suite.name != named("b.pt").name
    assert [variant.name for variant in suite.variants] == ["dense"]


def test_an_option_that_cannot_be_is_told_like_a_key() -> None:
    with pytest.raises(ConfigError, match=r"command line: iterations: expected greater than or equal to 30, got 3"):
        options(BenchConfig, iterations=3, duration=None)


def test_the_schema_describes_every_key() -> None:
    schema = suite_schema()
    parts = {"": schema, **schema["$defs"]}
    told = {f"{part}.{key}": about for part, one in parts.items() for key, about in one["properties"].items()}

    assert set(schema["properties"]) == set(Suite.model_fields)
    assert [key for key, about in told.items() if not about.get("description")] == []
    assert schema["$id"].startswith("https://")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("decison: {}", "did you mean decision?"),
        ("calibration: {methd: mse}", "did you mean method?"),
        ("calibration: {method: entropie}", "did you mean entropy?"),
        ("model: {name: resnet20, train: {epoch: 1}}", "did you mean epochs?"),
        ("variants: [{kind: chanels, name: a}]", "did you mean channels?"),
        ("variants: [{kind: channels, name: a, rato: 0.5}]", "did you mean ratio?"),
        ("engines: [{backend: tensort}]", "did you mean tensorrt?"),
        ("per_class: 4", "it stands in calibration.per_class;"),
        ("bench: {mixup: 1}", "it stands in model.train.augment.mixup and fine_tune.augment.mixup;"),
    ],
)
def test_a_fault_names_what_was_meant(line: str, words: str) -> None:
    key = line.partition(":")[0]
    kept = [one for one in _GOOD.splitlines() if not one.startswith(f"{key}:")]

    with pytest.raises(ConfigError) as caught:
        parse_suite("\n".join([*kept, line]), origin="s.yaml")

    assert words in str(caught.value)


def test_what_is_no_yaml_is_told_with_line_and_column() -> None:
    with pytest.raises(ConfigError, match=r"s\.yaml:3:4: not valid YAML"):
        parse_suite("name: x\nbench: {a: [1,\nb: }", origin="s.yaml")


def test_the_zoo_of_the_suite_is_that_of_the_models_room() -> None:
    from trtbench.models import model_names
    from trtbench.suite import ZOO

    assert model_names() == ZOO


@pytest.mark.parametrize(("builds_int8", "step"), [(True, 16), (False, 8)])
def test_widths_are_rounded_to_what_the_precisions_built_like(builds_int8: bool, step: int) -> None:  # noqa: FBT001  by pytest
    variant = ChannelsVariant(kind="channels", name="half", ratio=0.5)

    assert variant.settled(builds_int8=builds_int8).round_to == step
