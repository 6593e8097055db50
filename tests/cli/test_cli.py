"""The command line: every verb, its JSON, and how an error becomes a message and an exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.environment import Driver, Gpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.command import Answer

_TINY = "--size 8 --data digits"


@pytest.fixture
def trtbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]
) -> Callable[[str], Answer]:
    """Run a command line in a folder of its own, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    return lambda arguments: command(*arguments.split())


_SUITE = """
name: tiny
data: {source: digits, size: 8}
model: {name: 'tiny_nets:resnet8', checkpoint: net.safetensors}
variants: [{kind: dense, name: dense}]
export: {exporter: torchscript}
calibration: {per_class: 1, method: minmax}
bench: {batch_sizes: [1], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1}
decision: {max_drop_pp: 40}
"""


@pytest.fixture
def tiny(tiny_weights: Path) -> Path:
    """A suite of one dense variant on 16x16 digits, with weights beside it."""
    path = tiny_weights / "tiny.yaml"
    path.write_text(_SUITE)
    return path


def test_build_bench_report_plan_and_store_work_on_one_suite(trtbench: Callable[[str], Answer], tiny: Path) -> None:
    built = trtbench(f"build {tiny}")
    assert built.code == 0, built.err
    assert "dense int8 onnxruntime-cpu" in built.out
    assert "done" in built.err

    again = trtbench(f"build {tiny} --json --quiet")
    assert [engine["status"] for engine in again.json["engines"]] == ["ok", "ok", "ok"]
    assert again.err == ""

    shown = trtbench(f"plan {tiny}").out
    assert "3 rows" in shown
    assert "nothing: only to measure" in shown
    assert (planned := trtbench(f"plan {tiny} --json").json)["disk_bytes"] == 0
    assert planned["schema_version"] == "1"

    benched = trtbench(f"-v bench {tiny}")
    assert benched.code == 0, benched.err
    assert "CPU" in benched.out or "cpu" in benched.out
    assert "report.md, report.csv, run.log\n" in benched.err
    assert "start  data" in benched.err
    (log,) = tiny.parent.glob("runs/2*/run.log")
    told = log.read_text(encoding="utf-8")
    assert f"trtbench -v bench {tiny}" in told.splitlines()[0]
    assert re.search(r"INFO +trtbench.progress: done time batch 1 [0-9.]+ s\n", told), told
    assert "DEBUG" not in told

    assert trtbench("report --json").json["schema_version"] == "1"
    assert "onnxruntime-cpu" in trtbench("report runs/latest/report.json").out

    kinds = {one["kind"] for one in trtbench("store list --json").json["artefacts"]}
    assert kinds == {"computing", "trial"} | {
        *("dense", "expected", "graph", "judgement", "manifest", "overlap", "qdq", "ranges")
    }
    assert "artefacts" in trtbench("store list").out
    assert trtbench("store prune --older-than-days 1").err.startswith("Freed 0.00 MB")
    assert trtbench("store prune").err.startswith("Freed 0.00 MB")
    assert {one["kind"] for one in trtbench("store list --json").json["artefacts"]} == kinds - {
        "trial"
    }  # the report used them
    assert "Freed" in trtbench("store prune --all").err
    assert trtbench("store list --json").json["artefacts"] == []


def test_run_does_everything_and_answers_in_json(trtbench: Callable[[str], Answer], tiny: Path) -> None:
    found = trtbench(f"run {tiny} --json --quiet")

    assert found.code == 0, found.err
    assert [row["status"] for row in found.json["rows"]] == ["ok"] * 3
    assert found.err == ""


@cache
def _leaves() -> dict[str, Any]:
    from trtbench.cli.main import verbs
    from trtbench.cli.options import command_of

    found: dict[str, Any] = {}
    for name, verb in verbs().items():
        command = command_of(verb)
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {one}": leaf for one, leaf in inner.items()}
    return found


@pytest.mark.parametrize("verb", _leaves())
def test_every_verb_heeds_quiet_and_no_color(
    trtbench: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Each is asked for what is not there, or answers at once."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    params = _leaves()[verb].params
    given = ["missing" for one in params if one.param_type_name == "argument"]
    given += [f"{one.opts[0]} missing" for one in params if one.required and one.param_type_name == "option"]

    found = trtbench(f"{verb} {' '.join(given)} --quiet -v --log-level error")

    assert found.code in {0, 2, 3, 5}, found.err
    assert all(line.startswith("error: ") for line in found.err.splitlines()), found.err
    assert not re.search(r"\x1b\[[\d;]*[349]\d", found.out + found.err)


def test_an_error_is_red_where_colour_is_wanted(
    trtbench: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert "\x1b[31merror:" in trtbench("plan missing").err


def test_a_failed_row_exits_3(trtbench: Callable[[str], Answer], tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trtbench.engines.pytorch import TorchBackend
    from trtbench.errors import EngineError

    def fail(*_: object) -> None:
        raise EngineError("this engine", got="a fault")

    monkeypatch.setattr(TorchBackend, "build", fail)

    found = trtbench(f"build {tiny}")

    assert found.code == 3
    assert "this engine: got a fault" in found.out


def test_a_build_that_made_nothing_exits_3_and_names_what_can_be_asked(
    trtbench: Callable[[str], Answer], tiny: Path
) -> None:
    tiny.write_text(
        f"{_SUITE}engines: [{{backend: onnxruntime-cpu, precisions: [fp16]}}]\n".replace(
            "processes: 1}", "processes: 1, baselines: []}"
        )
    )

    found = trtbench(f"build {tiny} --json --quiet")

    assert found.code == 3
    (engine,) = json.loads(found.out)["engines"]
    assert engine["status"] == "unsupported"
    assert "fp32 or int8" in engine["reason"]


def test_a_fault_in_a_suite_exits_2_with_one_line_a_fault(trtbench: Callable[[str], Answer], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(_SUITE + "bogus: 1\nexports: {}\n")

    found = trtbench("plan bad.yaml")

    assert found.code == 2
    assert found.err.count("error: bad.yaml:") == 2
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("build quickstart --model resnet20", "SUITE: expected only without --model"),
        ("build --precision int8", "--precision: expected only with --model"),
        ("bench --duration 1 --batch-size 4", "--batch-size, --duration: expected only with --engine"),
        ("bench quickstart --engine e.onnx", "SUITE: expected only without --engine"),
        ("bench --engine none.onnx", "an engine file"),
        ("evaluate --model resnet20 --checkpoint none.pt", "none.pt"),
        ("evaluate --model resnet20", "untrained weights"),
        ("evaluate --model resnet20 --checkpoint a.pt --mean 1,b,c --std 1,1,1", "numbers joined by commas"),
        ("prune --model resnet20", "exactly one of ratio, macs, params"),
        ("prune --model resnett --ratio 0.5", "resnet"),
        ("prune --model resnet20 --ratio 0.5 --importance taylor", "taylor"),
        ("export --model resnet20 --output m.onnx --exporter magic", "exporter"),
        ("report nothing", "report.json"),
        ("gpu-info --require magic", "magic"),
        ("plan none.yaml", "quickstart"),
    ],
)
def test_a_mistake_of_the_user_exits_2_and_says_what_is_wrong(
    trtbench: Callable[[str], Answer], arguments: str, words: str
) -> None:
    found = trtbench(arguments)

    assert found.code == 2
    assert words in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("crosscheck e --batch 4", "--batch: expected --batch-size"),
        ("bench --engine e --batch 4", "--batch: expected --batch-size"),
        ("plan --device cuda:1", "--device: expected it before the verb"),
        ("export --model resnet20 --out m.onnx", "--out: expected -o/--output"),
        ("run --output there", "--output: expected --out;"),
        ("comapre a b", "No such command 'comapre'. Did you mean 'compare'?"),
    ],
)
def test_what_is_spelled_as_elsewhere_or_before_is_refused_with_the_cure(
    trtbench: Callable[[str], Answer], arguments: str, words: str
) -> None:
    found = trtbench(arguments)

    assert (found.code, found.out) == (2, "")
    assert words in found.err


@pytest.mark.parametrize("verb", ["", "compare a b c "])
def test_a_long_argument_is_not_repeated_whole(trtbench: Callable[[str], Answer], verb: str) -> None:
    found = trtbench(f"{verb}{'1' * 5000}")

    assert found.code == 2
    assert "rror" in found.err
    assert len(found.err) < 2000


def test_the_version_is_that_of_the_package(trtbench: Callable[[str], Answer]) -> None:
    from importlib.metadata import version

    assert trtbench("--version").out == f"trtbench {version('trtbench')}\n"


def test_the_help_shows_every_verb_once_in_the_group_it_belongs_to(trtbench: Callable[[str], Answer]) -> None:
    from trtbench.cli.main import verbs

    told = trtbench("--help").out
    groups = {title: re.findall(r"^  ([a-z0-9-]+) ", rest, re.MULTILINE) for title, rest in _sections(told)}

    assert [name for group in ("Run", "Steps", "Results", "Machine") for name in groups[group]] == list(verbs())
    assert "plan" in groups["Run"]
    assert "prune" in groups["Steps"]
    assert "compare" in groups["Results"]
    assert "gpu-info" in groups["Machine"]


def _sections(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+):\n((?:  .*\n)+)", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "found"),
    [("trtbench re", {"report", "recommend", "reproduce"}), ("trtbench run --req", {"--require-gpu"})],
)
def test_the_shell_completes_verbs_and_options(
    trtbench: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch, line: str, found: set[str]
) -> None:
    monkeypatch.setenv("_TRTBENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))

    assert set(trtbench("").out.split()) == found


@pytest.mark.parametrize("arguments", ["no-such-verb", "prune", "plan --bogus"])
def test_a_wrong_command_line_exits_2_with_the_usage(trtbench: Callable[[str], Answer], arguments: str) -> None:
    found = trtbench(arguments)

    assert found.code == 2
    assert "Usage" in found.err


def test_an_interrupt_exits_130_and_says_how_to_go_on(
    trtbench: Callable[[str], Answer], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench import running

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "build_suite", interrupted)

    found = trtbench(f"build {tiny}")

    assert found.code == 130
    assert "go on where it stopped" in found.err


def test_what_ends_a_container_exits_143(
    trtbench: Callable[[str], Answer], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench import running

    monkeypatch.setattr(running, "build_suite", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert trtbench(f"build {tiny}").code == 143
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("is_first_process", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_in_five_seconds_with_the_report_of_what_was_measured(
    tiny: Path, number: signal.Signals, *, is_first_process: bool
) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"] if is_first_process else []
    if apart and subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare makes no process namespaces here, so nothing can be the first process of one")
    heeding = ["env", "--default-signal=INT"]  # of tests in the background it is ignored
    long = tiny.read_text().replace("duration: 0.01", "duration: 600").replace("ceiling", "")
    tiny.write_text(long.replace("processes: 1", "processes: 1, ceiling: 600"))
    run = subprocess.Popen(
        [*apart, *heeding, sys.executable, "-m", "trtbench", "run", str(tiny), "--quiet"],
        cwd=tiny.parent,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + 120
        while not list(tiny.parent.glob("runs/*/logs/*")) and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(10)  # it is being timed
        pid = run.pid
        if apart:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        for _ in range(3):
            os.kill(pid, number)
            time.sleep(0.3)
        since = time.monotonic()
        assert run.wait(timeout=60) == 128 + number
        assert time.monotonic() - since < 5 * max(1.0, os.getloadavg()[0])  # others may want the machine too
    finally:
        run.kill()
        run.communicate()

    (report,) = tiny.parent.glob("runs/2*/report.json")
    assert "The run was interrupted" in report.read_text(encoding="utf-8")


def test_demanding_a_gpu_where_there_is_none_exits_5(
    trtbench: Callable[[str], Answer], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert trtbench(f"build {tiny} --require-gpu").code == 5
    assert trtbench("gpu-info --require fp16,int8").code == 5


def test_gpu_info_tells_the_host_and_the_packages(trtbench: Callable[[str], Answer]) -> None:
    told = trtbench("gpu-info")
    found = trtbench("gpu-info --json")

    assert told.code == 0
    assert "torch" in told.out
    assert found.json["host"]["cpu"]["logical_cores"] >= 1


def test_gpu_info_shows_a_gpu_its_clashes_and_what_tensorrt_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from trtbench.cli.machine import _show_machine
    from trtbench.environment import Package, collect_environment, gpu_info

    gpu = Gpu(index=0, uuid="GPU-1", name="H100", compute_capability=(9, 0), memory_bytes=80 * 2**30)
    old = Driver(version="525.60", cuda=(12, 0))
    torch = Package(module="torch", distribution="torch", version="2.15.0", cuda="13.2")
    here = collect_environment()
    environment = replace(here, gpus=(gpu,), driver=old, packages=(torch,), cuda_visible_devices=None)

    _show_machine(gpu_info(environment))
    shown = capsys.readouterr().out

    assert "GPU 0: H100, SM 9.0, 80 GiB" in shown
    assert "error:" in shown
    assert "TensorRT engines need, on this machine:" in shown

    _show_machine(replace(gpu_info(environment), tensorrt_ready=True))
    assert "This machine has all that TensorRT engines need." in capsys.readouterr().out


@pytest.mark.usefixtures("tiny")
def test_the_gpu_of_the_command_line_goes_before_that_of_a_suite(
    trtbench: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = Gpu(index=0, uuid="GPU-1", name="H100", compute_capability=(9, 0))
    monkeypatch.setattr("trtbench.environment.overview.collect_gpus", lambda _: (Driver(), (gpu,)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "other.yaml").write_text((tmp_path / "tiny.yaml").read_text() + "device: cuda:5\n")

    suites, absent = trtbench("plan other.yaml"), trtbench("--device GPU-2 plan other.yaml")

    assert (suites.code, absent.code) == (5, 5)
    assert "device cuda:5: expected one of this machine's GPUs, got cuda:0 H100 GPU-1" in suites.err
    assert "device GPU-2" in absent.err
    assert trtbench("--device cuda:0 plan other.yaml").code == 0


@pytest.mark.usefixtures("tiny")
def test_the_schema_is_json_and_init_writes_a_suite_that_plans(trtbench: Callable[[str], Answer]) -> None:
    schema = trtbench("schema").json
    assert schema["$id"].endswith("/suite.schema.json")
    assert trtbench("init --model tiny_nets:resnet8 --data digits --checkpoint net.safetensors").code == 0
    first = Path("suite.yaml").read_text(encoding="utf-8").partition("\n")[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    assert json.loads(Path(named[1]).read_text(encoding="utf-8")) == schema
    assert trtbench("init --model resnet20 --data digits").code == 2
    assert trtbench("plan suite.yaml").code == 0
    assert trtbench("init --model resnet20 --data digits --force").code == 0


@pytest.mark.parametrize("option", ["--classes", "--num-classes"])
def test_a_step_without_data_is_told_its_classes(trtbench: Callable[[str], Answer], option: str) -> None:
    from safetensors import safe_open

    told = trtbench(f"prune --model tiny_nets:resnet8 {option} 3 --ratio 0.5 --round-to 1 --output p.safetensors")

    assert told.code == 0, told.err
    with safe_open("p.safetensors", framework="pt") as file:
        assert file.get_tensor("fc.bias").shape == (3,)


def test_prune_answers_params_macs_and_widths(trtbench: Callable[[str], Answer]) -> None:
    found = trtbench("prune --model resnet20 --ratio 0.5 --round-to 1 --output p.safetensors --json").json

    assert found["params"] == 68_786
    assert found["macs"] == pytest.approx(10.31e6, rel=1e-3)
    assert set(found["widths"].values()) == {8, 16, 32}
    assert Path("p.safetensors").exists()
    assert "68,786 parameters" in trtbench("prune --model resnet20 --ratio 0.5 --round-to 1").out


@pytest.mark.usefixtures("tiny")
def test_each_step_answers_in_json_and_in_words(trtbench: Callable[[str], Answer]) -> None:
    weights = "--model tiny_nets:resnet8 --checkpoint net.safetensors"

    evaluated = trtbench(f"evaluate {weights} {_TINY} --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 --json").json
    assert (evaluated["total"], evaluated["notes"]) == (900, [])
    assert re.search(r"of 900 correct", trtbench(f"evaluate {weights} {_TINY}").out)

    exported = trtbench(f"export {weights} --output m.onnx --exporter torchscript --size 8 --json").json
    assert exported["opset"] == 20

    quick = "--per-class 1 --set export.exporter=torchscript"
    calibrated = trtbench(f"calibrate {weights} {_TINY} {quick} --method minmax --output cal --json").json
    assert calibrated["images"] == 10

    trained = trtbench(f"train --model tiny_nets:resnet8 {_TINY} --epochs 0 --output t --quiet --json").json
    assert trained["best_epoch"] == 0

    built = trtbench(f"build {weights} {_TINY} --precision int8 --backend onnxruntime-cpu {quick} --quiet --json")
    engine = built.json["engines"][0]
    assert engine["status"] == "ok"

    options = "--duration 0.01 --warm-up 0 --batch-size 2 --quiet"
    measured = trtbench(f"bench --engine {engine['path']} {options} --json").json
    assert measured["rows"][0]["accuracy"]["total"] == 900
    assert "of 900 correct, p50" in trtbench(f"bench --engine {engine['path']} {options}").out


def test_a_damaged_engine_is_a_row_that_says_so(trtbench: Callable[[str], Answer], tiny: Path) -> None:
    path = trtbench(f"build {tiny} --json --quiet").json["engines"][0]["path"]
    Path(path).write_bytes(b"another file")

    found = trtbench(f"bench --engine {path} --quiet")

    assert found.code == 3
    assert "failed: engine" in found.out


def test_brackets_in_a_message_are_shown_as_they_are(trtbench: Callable[[str], Answer]) -> None:
    found = trtbench("report no[/old]folder[bold]")

    assert found.code == 2
    assert "no[/old]folder[bold]" in found.err


@pytest.mark.usefixtures("tiny")
def test_init_writes_paths_that_hold_from_the_suites_own_folder(trtbench: Callable[[str], Answer]) -> None:
    Path("sub").mkdir()

    weights = "--model tiny_nets:resnet8 --checkpoint net.safetensors"
    assert trtbench(f"init {weights} --data digits --output sub/s.yaml").code == 0
    assert trtbench("plan sub/s.yaml").code == 0


@pytest.mark.slow  # three processes with limits
@pytest.mark.usefixtures("tiny")
def test_init_opens_an_onnx_file(trtbench: Callable[[str], Answer]) -> None:
    weights = "--model tiny_nets:resnet8 --checkpoint net.safetensors"
    assert trtbench(f"export {weights} --output m.onnx --exporter torchscript").code == 0
    assert trtbench("init --model onnx:m.onnx --data digits").code == 0
    assert trtbench("build suite.yaml").code == 0
    assert "stripped" not in Path("suite.yaml").read_text(encoding="utf-8")
    quantized = next(Path("runs/.store/qdq").glob("*/model.onnx"))
    assert trtbench(f"init --model onnx:{quantized} --data digits --output own.yaml").code == 0
    assert "{kind: stripped, name: stripped}" in Path("own.yaml").read_text(encoding="utf-8")
    assert trtbench("build own.yaml").code == 0  # INT8 of the graph as it came is unsupported, which fails nothing
    Path("m.onnx").write_bytes(b"")
    assert trtbench("init --model onnx:m.onnx --data digits --force").code == 2


def test_init_proposes_what_it_finds_in_checkpoint_and_folder(
    trtbench: Callable[[str], Answer], noise: Callable[..., Path]
) -> None:
    import torch

    from trtbench.models import build_model, save_model

    folder = noise(train=5, test=2)
    for classes in (3, 10):
        network = build_model("tiny_nets:resnet8", num_classes=classes)
        with torch.no_grad():
            [*network.parameters()][-1][0] += 1e3  # whatever it starts from, it says the first class: one of three
        save_model(Path(f"{classes}.safetensors"), network, name="tiny_nets:resnet8", num_classes=classes, metadata={})

    told = trtbench(f"init --checkpoint 3.safetensors --data folder:{folder}")
    other = trtbench(f"init --checkpoint 10.safetensors --data folder:{folder} --output other.yaml")

    assert told.code == 0, told.err
    assert "3.safetensors fits tiny_nets:resnet8" in told.err
    text = Path("suite.yaml").read_text(encoding="utf-8")
    assert "size: 16  # measured: all images have it" in text
    assert re.search(r"mean: \[0\.\d+, 0\.\d+, 0\.\d+\]  # measured on the training images: if the network", text)
    assert "# 12 images to train on, 3 to validate on, 6 to score on; 3 classes" in text
    assert "per_class: 3}" in text
    assert "# 1 of 3 validation images are told right by the checkpoint: no more than guessing" in text
    assert trtbench("plan suite.yaml --json").json["rows"]
    assert other.code == 2
    assert "expected 3 classes, got 10; use data of 10 classes, name all 10 in data.classes" in other.err
    assert not Path("other.yaml").exists()


def test_init_says_of_mean_and_size_that_the_checkpoint_notes_them(
    trtbench: Callable[[str], Answer], noise: Callable[..., Path]
) -> None:
    from trtbench.jsonable import to_jsonable
    from trtbench.models import build_model, save_model
    from trtbench.records import Preprocessing

    network = build_model("tiny_nets:resnet8", num_classes=3)
    noted = json.dumps(to_jsonable(Preprocessing(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), size=24)))
    save_model(Path("n.safetensors"), network, name="tiny_nets:resnet8", num_classes=3, metadata={"input": noted})

    told = trtbench(f"init --model tiny_nets:resnet8 --checkpoint n.safetensors --data folder:{noise(train=5, test=2)}")

    assert told.code == 0, told.err
    text = Path("suite.yaml").read_text(encoding="utf-8")
    assert "size: 24  # noted in the checkpoint" in text
    assert "mean: [0.1, 0.2, 0.3]  # noted in the checkpoint" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--data digits", "--model: expected a network, got none"),
        ("--data digits --model resnet20 --set bench.duration=1", "expected keys of data and of model"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_init_refuses_what_it_cannot_write_or_run(trtbench: Callable[[str], Answer], options: str, told: str) -> None:
    found = trtbench(f"init {options}")

    assert found.code == 2
    assert told in found.err
    assert not Path("suite.yaml").exists()


@pytest.mark.parametrize(
    "options",
    [
        "--model resnet20 --data digits --checkpoint none.pt",
        "--model resnet20 --data folder:none",
        "--model onnx:none.onnx --data digits",
    ],
)
def test_init_refuses_a_path_that_is_not_there(trtbench: Callable[[str], Answer], options: str) -> None:
    found = trtbench(f"init {options} --output s.yaml")
    assert found.code == 2
    assert "expected a file or folder that is there, got none" in found.err
    assert not Path("s.yaml").exists()
