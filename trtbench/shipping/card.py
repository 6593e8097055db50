"""The model card of a bundle: its README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.data.load import tensor_words
from trtbench.records import AsTheyAre, Preprocessing
from trtbench.report.tables import Table, to_markdown
from trtbench.report.units import decibels, fixed, megabytes, percent, significant
from trtbench.report.words import device_words
from trtbench.shipping.triton import served_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trtbench.report.document import Report
    from trtbench.rows import Row
    from trtbench.shipping.bundle import Proof

_TOGETHER = "with all engines that were compared"


def card(described: Mapping[str, Any], *, row: Row, report: Report) -> str:
    """Return README.md of a bundle, whose fields are `described`."""
    facts = to_markdown(Table.of(("what", "value"), list(_facts(described, row)), left=2))
    packages = " ".join(f"'{name}=={number}'" for name, number in described["versions"].items())
    method, more = ("outputs", "--output outputs.npz") if described["outputs"] else ("predict", "--top 3")
    is_pictures = "tensors" not in described["preprocessing"]
    given, argument = ("IMAGE...", "images") if is_pictures else ("SAMPLES.npz", "arrays")
    parts = [
        f"# {row.variant} {row.shown_precision}, {row.backend}",
        report.decision.sentence if described["is_chosen"] else f"Not the row that run {report.run_id} recommends.",
        facts,
        "## Run it",
        "    " + f"pip install {packages}" + f"\n    python predict.py {given} {more} --json",
        f"or, with trtbench, `trtbench predict . {given}` and `trtbench.load(folder).{method}({argument})`.",
        "## What is proven",
        _proven(described["proof"]),
        *(_triton(described) if is_pictures else ()),
        "## Build it for another machine",
        "model.onnx is the graph the engine was built from; in this folder:",
        f"    {described['rebuild']}",
        "## Files",
        _files(described),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(described: Mapping[str, Any], row: Row) -> Iterator[tuple[str, str]]:
    fit, scored, latency = described["preprocessing"], row.accuracy, row.latency
    if described["outputs"]:
        yield "outputs", ", ".join(f"{one['name']} {tuple(one['shape'])}" for one in described["outputs"])
    else:
        yield "classes", f"{len(described['classes'])}: {', '.join(described['classes'][:20])}"
    yield "network", described["model"]
    yield "layers", described["achieved"]
    yield "runs on", f"{device_words(row)} ({described['machine']}), {row.backend} {described['backend_version']}"
    yield "batch", f"{described['batch_size']}; measured at {', '.join(map(str, described['batch_sizes']))}"
    if scored is not None:
        of_graph = "" if described["is_run"] else ", of its graph in exact arithmetic"
        yield "top-1", f"{scored.correct} of {scored.total} ({percent(scored.top1)} %){of_graph}"
    if scored is not None and described["drop_upper_pp"] is not None:
        yield "drop at most", f"{fixed(described['drop_upper_pp'])} pp (95 % confidence, {_TOGETHER})"
    if row.fidelity is not None and (score := row.fidelity.score) is not None:
        bound = f"drop at most {significant(score.drop_upper(engines=row.together))} (95 % confidence, {_TOGETHER})"
        yield "score", f"{significant(score.mean)}, {bound}"
    if row.fidelity is not None:
        told = f"({row.fidelity.worst}) on {row.fidelity.images} images" if row.fidelity.snr_db is not None else ""
        yield "fidelity to the float network", f"{decibels(row.fidelity.snr_db)} {told}".strip()
    if latency is not None:
        yield "p50", f"{significant(latency.p50_ms)} ms"
    if row.engine_bytes is not None:
        yield "size", f"{megabytes(row.engine_bytes)} MB"
    tensors = Preprocessing.read(fit) if "tensors" in fit else None
    yield (
        "input",
        tensor_words(tensors)
        if isinstance(tensors, AsTheyAre)
        else (
            f"8-bit {described['colour']}, {_framing(fit)}, "
            f"(pixel / 255 - {list(fit['mean'])}) / {list(fit['std'])}, {fit['layout']} {fit['dtype']}"
        ),
    )
    limits = {key: value for key, value in described["limits"].items() if value is not None}
    yield "limits", ", ".join(f"{key} {value}" for key, value in limits.items())
    yield "licence", described["licence"] or "not said by who shipped it"


def _framing(fit: Mapping[str, Any]) -> str:
    height, width = (fit["size"],) * 2 if isinstance(fit["size"], int) else fit["size"]
    cut = f"the middle of {fit['crop_ratio']:g} of it" if fit["crop_ratio"] else "all of it"
    more = ("" if fit["antialias"] else ", no antialias") + (", rotated by EXIF" if fit["exif_rotation"] else "")
    return f"{height} x {width} (height x width; {cut}, {fit['interpolation']}{more})"


def _proven(proof: Proof) -> str:
    if proof.why_not:
        return f"Nothing here: {proof.why_not}. What golden.npz says is the graph's, in exact arithmetic."
    if proof.fidelity is not None:
        return (
            f"A fresh process with nothing but these files computed every output of {proof.fidelity.images} test"
            f" images: fidelity {decibels(proof.fidelity.snr_db)} to the float network, and no output's noise differs"
            f" from what the run found by more than {proof.margin:g} of the output."
        )
    if proof.flips is None:
        flips = "The run noted no first classes to compare with."
    elif proof.flips == 0:
        flips = "Not one has another first class than the run noted."
    else:
        flips = (
            f"{proof.flips} have another first class than the run noted, each a near-tie: its two logits differ by at"
            f" most {proof.margin:g} of the image's range."
        )
    return (
        f"A fresh process with nothing but these files got {proof.correct} of {proof.total} test images right, as many"
        f" as the run. {flips}"
    )


def _triton(described: Mapping[str, Any]) -> Iterator[str]:
    """Say how Triton serves the bundle, and what it did where it was asked."""
    answers = ", ".join(one["name"] for one in described["outputs"]) or "LOGITS"
    name = served_name(described)
    yield "## Serve it"
    yield (
        "`triton/models` is a model repository for a Triton server that has the engine's own backend: an ensemble of a"
        " Python step and the engine. `triton/python` is one for a server with the Python backend alone; its Python"
        f" needs what predict.py needs. Both answer as `{name}`, to PIXELS (uint8 NHWC) or IMAGE (the bytes of"
        f" files), with {answers}."
    )
    yield "    tritonserver --model-repository=triton/python\n    python triton/client.py IMAGE..."
    served = described.get("served")
    if served is None and described["outputs"]:
        return
    if served is None:
        yield "No server was asked: `trtbench ship --serve-check` asks one that serves `triton/python`."
        return
    counts = ", ".join(
        f"{one['correct']} of {one['total']} by {one['protocol']} at batch {one['batch']}" for one in served.counts
    )
    beyond = ", ".join(f"{one['batch']} by {one['protocol']}" for one in served.refused)
    yield f"Triton with `triton/python`, on loopback: {counts}; refused were batches of {beyond}. By gRPC:"
    loads = Table.by(
        served.loads,
        ("in flight", lambda one: str(one["streams"])),
        ("requests", lambda one: str(one["n"])),
        ("p50 ms", lambda one: significant(one["p50_ms"])),
        ("p99 ms", lambda one: significant(one["p99_ms"])),
        ("images/s", lambda one: significant(one["throughput_ips"])),
        left=0,
    )
    yield to_markdown(loads)


def _files(described: Mapping[str, Any]) -> str:
    is_pictures = "tensors" not in described["preprocessing"]
    golden = "and the engine's outputs" if described["outputs"] else "their labels and the engine's logits"
    told = {
        described["engine"]: "the engine, with its sidecar beside it",
        "bundle.json": "all of this for programs, with the sha256 of every file and of itself",
        "predict.py, runtime.py, pixels.py": "run it with NumPy, Pillow and the runtime alone",
        **({"triton/": "two model repositories and a client"} if is_pictures else {}),
        "golden.npz": f"ten test images as pixels and as input, {golden}"
        if is_pictures
        else f"ten test samples as `input NAME`, {golden} as `output NAME`",
        "report.json": "the row as the run had it, for `trtbench compare`",
    }
    return "\n".join(f"- `{name}`: {words}" for name, words in told.items())
