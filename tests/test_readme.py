"""What the README and the pages show comes from committed results."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.screenshot import PICTURE, REPORT, WIDTH
from trtbench.decide.limits import shown_bound_pp
from trtbench.report.document import read_report
from trtbench.report.tables import Table, to_markdown
from trtbench.report.units import fixed, significant
from trtbench.suite import VARIANT_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs"
_README = _ROOT / "README.md"
_EVIDENCE = _DOCS / "evidence"
_STAGES = {
    "train the dense network": ("dense",),
    "prune and fine-tune": ("variant",),
    "export, calibrate, build": ("graph", "manifest", "ranges", "qdq", "engine"),
    "score": ("score", "true arithmetic"),
    "time": ("time",),
}


def quickstart_block() -> str:
    """Write the block from the committed report: the sentence, a short table, the seconds of each stage."""
    report = read_report(_EVIDENCE / "quickstart")
    batch = report.decision.batch_size
    rows = [row for row in report.rows if row.batch_size == batch and row.accuracy and row.latency]
    cells = [
        (
            row.variant,
            row.precision,
            row.backend,
            fixed(100 * row.accuracy.top1),
            fixed(shown_bound_pp(row, report.rows) or 0.0),
            significant(row.latency.p50_ms),
            significant((row.engine_bytes or 0) / 1e6),
        )
        for row in rows
        if row.accuracy and row.latency
    ]
    headers = ("variant", "precision", "engine", "top-1 %", "drop at most, pp", f"p50 ms, batch {batch}", "MB")
    stages = [
        (name, f"{sum(report.stages.get(stage, 0.0) for stage in kinds):.0f} s") for name, kinds in _STAGES.items()
    ]
    environment = report.environment
    cpu = environment["host"]["cpu"]
    versions = {one["module"]: one["version"] for one in environment["packages"]}
    accuracy = rows[0].accuracy
    assert accuracy is not None
    where = (
        f"{cpu['logical_cores']} cores of an {cpu['model']}, Python {environment['host']['python']}, torch "
        f"{versions['torch']}, ONNX Runtime {versions['onnxruntime']}; {accuracy.total} test images; "
        f"`{' '.join(report.argv)}`"
    )
    table = to_markdown(Table.of(headers, cells, left=3))
    seconds = to_markdown(Table.of(("stage", "seconds"), stages, left=1))
    return f"> {report.decision.sentence}\n\n{table}\n\n{seconds}\n\nMeasured on {where}."


def calibration_block() -> str:
    """Write the table of the calibration benchmark from its committed JSON."""
    found = json.loads((_EVIDENCE / "calibration.json").read_bytes())
    told = {
        "speedup_vs_ort_entropy_512": "times as fast as ONNX Runtime's Entropy, 512 images",
        "rss_ratio_5000_to_250": "peak memory with 5,000 images over that with 250",
        "images_below_fp32": "images of 1,017 below FP32 (negative: above), true Q/DQ arithmetic",
    }
    models = list(found["speedup_vs_ort_entropy_512"])
    cells = [(words, *(f"{found[key][model]:.3g}" for model in models)) for key, words in told.items()]
    table = to_markdown(Table.of(("measured", *models), cells, left=1))
    load = found["environment"]["load_average"][0]
    return f"{table}\n\nMeasured on {found['environment']['cores']} cores beside a load of {load:.1f}."


def calibration_auto_block() -> str:
    """Write the table of what each method loses on pruned networks, from its committed JSON."""
    found = json.loads((_EVIDENCE / "calibration-auto.json").read_bytes())
    cells = [
        (method, f"{mean:.2f}", f"{found['worst_loss_of_360'][method]:.1f}")
        for method, mean in sorted(found["mean_loss_pp"].items(), key=lambda item: item[1])
    ]
    headers = (f"{found['count']} pruned networks", "mean loss pp", "worst, images of 360")
    known = next(one for one in found["networks"] if one["name"].startswith("known"))
    rescue = found["rescue"]
    left_out = rescue["leave_one_out"]
    found_bad = left_out["lossy"] - left_out["missed"]
    words = (
        (
            f"On the network that entropy was first seen to collapse on, it loses {known['lost']['entropy']} of "
            f"{known['images']} images and `auto` {known['lost']['auto']}."
        ),
        f"A rescue is tried below {rescue['snr_db']:.1f} dB: fitted without the network that is judged, that finds",
        (
            f"{found_bad} of {left_out['lossy']} graphs that lose more than 3 of 360 images, "
            f"and {left_out['alarms']} of {left_out['lossless']} that do not."
        ),
    )
    return "\n".join((to_markdown(Table.of(headers, cells, left=1)), "", *words))


def pass_words() -> str:
    """Say from the committed JSON what a calibration pass costs."""
    found = json.loads((_EVIDENCE / "calibration-pass.json").read_bytes())["models"]
    theirs = json.loads((_EVIDENCE / "calibration.json").read_bytes())["raw"]["akamaster-resnet20"]["timed_512"]
    ratios = [ratio for one in found.values() for ratio in one["cpu_over_forward"].values()]
    return (
        f"A pass takes {min(ratios):.1f} to {max(ratios):.1f} times the processor time of the bare forward pass\n"
        f"(`python -m tests.benchmarks.calibration_pass`); of a ResNet-20 ONNX Runtime calibrates "
        f"{theirs['onnxruntime-entropy'][0]['tensors']} tensors, trtbench\n{found['akamaster-resnet20']['tensors']}: "
        "those that the graph for TensorRT quantizes."
    )


def winners_curse_block() -> str:
    """Write the table of the simulated decisions about accuracy from their committed JSON."""
    found = json.loads((_EVIDENCE / "winners-curse.json").read_bytes())
    shares: dict[tuple[str, int], dict[bool, Mapping[str, float]]] = {}
    for one in found["scenes"]:
        shares.setdefault((one["scene"], one["images"]), {})[one["corrected"]] = one
    cells = [
        (
            scene,
            f"{images:,}",
            *(f"{100 * by[is_together]['broke_the_limit']:.1f}" for is_together in (False, True)),
            *(f"{100 * by[is_together]['lost_more_than_told']:.1f}" for is_together in (False, True)),
            f"{100 * by[True]['shipped']:.1f}",
        )
        for (scene, images), by in shares.items()
    ]
    headers = ("variants, limit 2 pp", "images", "broke it, alone %", "%", "more than told, alone %", "%", "shipped %")
    return to_markdown(Table.of(headers, cells, left=1))


def decisions_block() -> str:
    """Write the table of what the whole procedure ships, from its committed JSON."""
    found = json.loads((_EVIDENCE / "decisions.json").read_bytes())
    cells = [
        (
            one["scene"],
            f"{one['process_sd']:.2f}",
            f"{100 * one['ours']['broke_the_limit']:.1f}",
            f"{100 * one['ours']['too_slow_for_its_bytes']:.1f}",
            f"{100 * one['before']['too_slow_for_its_bytes']:.1f}",
            f"{100 * one['ours']['open']:.1f}",
            f"{100 * one['ours']['mean_regret']:.1f}",
        )
        for one in found["scenes"]
    ]
    headers = ("variants", "process sd", "broke the limit %", "too slow %", "too slow before %", "open %", "regret %")
    return to_markdown(Table.of(headers, cells, left=1))


def coverage_words() -> str:
    """Say from the committed JSON how often the intervals of latency hold the truth."""
    found = json.loads((_EVIDENCE / "latency-coverage.json").read_bytes())
    scenes = found["scenes"]
    held = [100 * one[figure]["held"] for one in scenes for figure in ("medians", "ratios")]
    return (
        f"In {len(scenes)} settings of how much processes, blocks and rows differ ({found['runs']:,} runs each)"
        " the 95 %\n"
        f"intervals of medians and ratios held the truth in {min(held):.1f} to {max(held):.1f} % of the runs."
    )


def simulated_words() -> str:
    """Say from the committed JSON what was simulated of the whole procedure."""
    found = json.loads((_EVIDENCE / "decisions.json").read_bytes())
    processes = {3: "three", 6: "six"}
    return (
        f"from {found['images']} images and {processes[found['processes']]} to {processes[found['most_processes']]} "
        f"processes to the choice, {found['runs']:,} runs a line"
    )


def curse_words() -> str:
    """Say from the committed JSON how many decisions about accuracy were simulated."""
    return f"takes {json.loads((_EVIDENCE / 'winners-curse.json').read_bytes())['runs']:,} decisions among simulated"


def emulation_words() -> str:
    """Say from the committed JSON what int8 kernels decide on a CPU without VNNI, the fused ones and the exact ones."""
    found = json.loads((_EVIDENCE / "explain-int8" / "akamaster-resnet20" / "explain.json").read_bytes())
    kernels = {one["how"].rpartition("x64quantprecision ")[2]: one for one in found["splits"][1]["kernels"]}
    fused, exact = kernels["off"], kernels["on"]
    return (
        f"of {fused['true']['total']} photos they decide {fused['differing_predictions']} otherwise than true "
        f"arithmetic, the logits\n{fused['against_true_snr_db']:.1f} dB from it; with the exact kernels that trtbench "
        f"takes there, {exact['differing_predictions']}, and {exact['against_true_snr_db']:.0f} dB"
    )


def methods_words() -> str:
    """Say from the committed JSON what is reached without training."""
    sparse = json.loads((_EVIDENCE / "sparsify.json").read_bytes())
    coded = json.loads((_EVIDENCE / "quantize.json").read_bytes())
    packed = coded["codec"]["best 2 bits, half"]
    return (
        f"Without training, on a ResNet-20 that gets {sparse['dense']['correct']} of {sparse['dense']['total']:,}\n"
        f"CIFAR-10 photos right: {sparse['rows']['second-order-80']['correct']} at 80 % sparsity by second order "
        f"([sparsify.json](evidence/sparsify.json)); {coded['best 3']['correct']} at 3 bits\n"
        f"a weight, and {packed['correct']} in a file of {packed['bytes']:,} bytes "
        "([quantize.json](evidence/quantize.json))."
    )


def fleet_block() -> str:
    """Write the table of what a fleet costs and gains, from its committed JSON."""
    found = json.loads((_EVIDENCE / "fleet.json").read_bytes())
    same = [counts for kind in found["nodes"]["kinds"].values() for counts in [kind]]
    rows = sum(one["rows"] for one in same)
    costs = [one["driver_ms_a_row"] for one in found["replay"]["threads_for_nodes"]]
    real = found["replay"]["nodes_of_ray"][0]["driver_ms_a_row"]
    most = max(one["nodes"] for one in found["replay"]["threads_for_nodes"])
    cells = (
        (
            "the quick start on one node, beyond a local run and Ray's start",
            f"{100 * found['overhead']['share']:.1f} % (aim: 10 %)",
        ),
        ("Ray's own start", f"{sum(found['overhead']['start_s']) / len(found['overhead']['start_s']):.1f} s"),
        (
            f"{found['scaling']['variants']} variants on two nodes of one core, against one",
            f"{found['scaling']['ratio']:.2f} times",
        ),
        (
            "rows of three nodes of two kinds with a local run's engines",
            f"{sum(one['same_engine_sha256'] for one in same)} of {rows}",
        ),
        ("of these with its counts", f"{sum(one['same_correct'] for one in same)} of {rows}"),
        ("the driver, for a row on 4 nodes of Ray", f"{real:.1f} ms"),
        (
            f"on 4 to {most} nodes that threads stand in for, 1,000 to 10,000 rows",
            f"{min(costs):.1f} to {max(costs):.1f} ms",
        ),
    )
    table = to_markdown(Table.of(("measured", "figure"), cells, left=1))
    return f"{table}\n\nMeasured by `python -m tests.benchmarks.fleet`, whose `--help` says what each figure is."


_BLOCKS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "quickstart: from docs/evidence/quickstart/report.json": ("README.md", quickstart_block),
    "calibration: from docs/evidence/calibration.json": ("docs/calibration.md", calibration_block),
    "calibration-auto: from docs/evidence/calibration-auto.json": ("docs/calibration.md", calibration_auto_block),
    "decisions: from docs/evidence/decisions.json": ("docs/statistics.md", decisions_block),
    "winners-curse: from docs/evidence/winners-curse.json": ("docs/statistics.md", winners_curse_block),
    "fleet: from docs/evidence/fleet.json": ("docs/fleet.md", fleet_block),
}


@pytest.mark.parametrize("title", _BLOCKS)
def test_a_table_is_that_of_the_committed_result(title: str) -> None:
    page, made = _BLOCKS[title]
    _, _, rest = (_ROOT / page).read_text(encoding="utf-8").partition(f"<!-- {title} -->\n")

    assert rest.partition(f"\n<!-- {title.partition(':')[0]} end -->")[0] == made()


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("calibration.md", pass_words),
        ("calibration.md", emulation_words),
        ("methods.md", methods_words),
        ("statistics.md", coverage_words),
        ("statistics.md", curse_words),
        ("statistics.md", simulated_words),
    ],
)
def test_a_sentence_is_that_of_the_committed_result(page: str, words: Callable[[], str]) -> None:
    assert words() in (_DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in _EVIDENCE.glob("*/report.json")), ids=lambda p: p.name
)
def test_every_committed_report_is_valid_real_and_names_no_machine_path(folder: Path) -> None:
    report = read_report(folder)

    assert all(row.status == "ok" and not row.simulated for row in report.rows)
    assert not re.search(r'"/(work|home|root|tmp|Users)/', (folder / "report.json").read_text(encoding="utf-8"))


def test_the_picture_is_of_the_committed_report_and_small() -> None:
    with Image.open(PICTURE) as picture:
        assert picture.width == WIDTH
        assert picture.info["Source"] == hashlib.sha256(REPORT.read_bytes()).hexdigest(), (
            "take it anew: make screenshot"
        )
    assert PICTURE.stat().st_size < 200_000
    assert str(PICTURE.relative_to(_ROOT)) in _README.read_text(encoding="utf-8")


def test_akamasters_network_scores_what_its_source_scores_and_int8_stays_within_two_images() -> None:
    rows = read_report(_EVIDENCE / "akamaster-resnet20").rows
    dense = {row.precision: row.accuracy for row in rows if row.variant == "dense" and row.batch_size == 1}

    assert dense["fp32"] is not None
    assert (dense["fp32"].correct, dense["fp32"].total) == (932, 1017)
    assert dense["int8"] is not None
    assert dense["int8"].true_arithmetic_correct is not None
    assert abs(dense["int8"].true_arithmetic_correct - 932) <= 2


def test_a_hundred_kills_of_builds_and_benches_changed_nothing() -> None:
    seen = json.loads((_EVIDENCE / "kill-and-resume.json").read_text(encoding="utf-8"))

    assert seen["kills"] >= 100
    assert set(seen["kills_by_verb"]) == {"build", "bench"}
    assert (seen["differing"], seen["unreadable_reports"], seen["partial_files"], seen["orphans"]) == ([], 0, 0, 0)


def test_no_hostile_input_ended_in_anything_but_a_sentence() -> None:
    seen = json.loads((_EVIDENCE / "fuzz.json").read_text(encoding="utf-8"))

    assert seen["total"]["failed"] == 0
    assert seen["total"]["cases"] == sum(kind["cases"] for kind in seen["kinds"].values()) >= 10_000
    assert len(seen["kinds"]) == 12
    assert all(kind["largest_cpu_s"] <= 20 and kind["largest_gb"] <= 2 for kind in seen["kinds"].values())
    assert all({*kind["codes"]} <= {*"023456"} for kind in seen["kinds"].values())


def test_the_table_of_kinds_names_every_kind_but_the_network_as_it_is() -> None:
    shown = re.findall(r"^\| `([a-z0-9_]+)` \|", (_DOCS / "methods.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert shown == [kind for kind in VARIANT_KINDS if kind != "dense"]


def test_every_link_of_the_readme_is_absolute_and_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", _README.read_text(encoding="utf-8"))
    ours = re.compile(
        r"https://(?:raw\.githubusercontent\.com/trtbench/trtbench|github\.com/trtbench/trtbench/(?:blob|tree))/main/"
    )

    assert links
    assert [link for link in links if not ours.match(link)] == []  # the package index shows this page without the files
    assert [link for link in links if not (_ROOT / ours.sub("", link)).exists()] == []
