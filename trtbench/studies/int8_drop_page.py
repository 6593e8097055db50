"""An INT8 drop explained: its JSON, its Markdown, its figure and the exclude list that a suite takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from matplotlib.ticker import MaxNLocator

from trtbench.disk import write_atomically
from trtbench.jsonable import to_jsonable
from trtbench.report.figures import png
from trtbench.report.figures_style import GREY, PALE, colours, new_figure, quieten
from trtbench.report.tables import Table, to_markdown
from trtbench.report.units import fixed, significant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trtbench.studies.int8_drop import Effect, Explanation, LayerEffect

_NO_NOISE = "no noise"
# What of an effect, or of the parts of a drop, follows from its fields
_FOLLOWS = (*("drop_pp", "drop_upper_pp", "weights_images", "activations_images", "together_images", "lost_images"),)
_LAYER_INCHES = 0.22  # of height per layer, so that every label keeps its line
_NAME_LENGTH = 44


def explanation_json(found: Explanation) -> dict[str, Any]:
    """Return the record as JSON values, each effect with its drop and that drop's upper bound."""
    document: dict[str, Any] = _jsonable(found)
    return document


def write_explanation(found: Explanation, folder: Path) -> None:
    """Write explain.json, explain.md, exclude.yaml and explain.png into `folder`; each is whole or absent.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_atomically(folder / "explain.json", json.dumps(explanation_json(found), indent=1) + "\n")
    write_atomically(folder / "explain.png", png(layers_figure(found)))
    write_atomically(folder / "explain.md", explanation_markdown(found, plot="explain.png"))
    write_atomically(folder / "exclude.yaml", exclude_yaml(found))


def exclude_yaml(found: Explanation) -> str:
    """Return the part of a suite that keeps the layers found in higher precision."""
    head = f"# trtbench explain-int8: keeps {found.variant} for {found.placement} within {found.max_drop_pp:g} pp"
    return f"{head} on validation\n" + yaml.safe_dump({"calibration": {"exclude": list(found.exclude)}})


def explanation_markdown(found: Explanation, *, plot: str) -> str:
    """Return explain.md; `plot` is the path of the image, relative to the file."""
    parts = [
        f"# Where the INT8 drop of {found.model} ({found.variant}) comes from",
        f"**{verdict(found)}**",
        *caveats(found),
        f"## The drop in parts: {found.test_images} test images",
        to_markdown(split_table(found)),
        _SPLIT_LEGEND,
        *([to_markdown(kernel_table(found)), _KERNEL_LEGEND] if any(split.kernels for split in found.splits) else []),
        f"## Layer by layer: Q/DQ as placed for {found.placement}, {found.validation_images} validation images",
        f"![Layer by layer]({plot})",
        to_markdown(layer_table(found)),
        f"{_LAYER_LEGEND} FP32 gets {found.validation_float_correct} right, INT8 {found.all_quantized.correct}.",
        f"Measured on {', '.join(' '.join(item) for item in found.where.items())}.",
    ]
    return "\n\n".join(parts) + "\n"


def verdict(found: Explanation) -> str:
    """Say what to keep in higher precision, and what that was measured to do."""
    proof = "proven" if found.final_test.drop_upper_pp <= found.max_drop_pp else "not proven"
    kept = found.exclusion.nodes
    share = fixed(100 * found.exclusion.macs_share, decimals=1)
    layers = f"{len(kept)} of {len(found.layers)} layers ({share} % of the MACs)"
    before = f"With all layers in INT8 the drop is {_drop(found.all_quantized)} on validation"
    after = f"on test it is {_drop(found.final_test)}, at most {fixed(found.final_test.drop_upper_pp)} pp"
    limit = f"that it is within {found.max_drop_pp:g} pp is {proof} there"
    if not kept:
        return f"{before}, within {found.max_drop_pp:g} pp: no layer needs higher precision; {after}: {limit}."
    return (
        f"{before}. {layers} in higher precision bring it to {_drop(found.final_validation)}; {after}: {limit}. "
        f"Keep {', '.join(kept)}."
    )


def caveats(found: Explanation) -> tuple[str, ...]:
    """Say what the validation images cannot tell."""
    if found.validation_float_correct < found.validation_images:
        return ()
    warning = (
        "FP32 gets every validation image right: it was most likely trained on them, so counts there say little of new"
    )
    return (f"{warning} images; the signal-to-noise ratios do not depend on it.",)


def split_table(found: Explanation) -> Table:
    """Return a line for each placement: images right, and lost to weights, activations and both together."""
    return Table.by(
        found.splits,
        ("Placement", lambda one: one.placement),
        ("FP32 right", lambda one: str(one.float_correct)),
        ("Weights", lambda one: _signed(-one.weights_images)),
        ("Activations", lambda one: _signed(-one.activations_images)),
        ("Together", lambda one: _signed(-one.together_images)),
        ("INT8 right", lambda one: str(one.both.correct)),
        ("Drop pp", lambda one: f"{fixed(one.both.drop_pp)} (<= {fixed(one.both.drop_upper_pp)})"),
        ("Logits SNR dB", lambda one: _decibels(one.both.logits_snr_db)),
        left=1,
    )


def kernel_table(found: Explanation) -> Table:
    """Return a line for each way an engine was run beside true arithmetic on the same images."""
    headers = ("Placement", "Kernels", "Images", "True right", "Engine right", "Kernels", "Other top-1", "SNR dB")
    cells = tuple(
        (
            f"{split.placement}: {split.achieved}",
            kernel.how,
            str(kernel.effect.total),
            str(kernel.true.correct),
            str(kernel.effect.correct),
            _signed(-kernel.lost_images),
            str(kernel.differing_predictions),
            _decibels(kernel.against_true_snr_db),
        )
        for split in found.splits
        for kernel in split.kernels
    )
    return Table.of(headers, cells, left=2)


def layer_table(found: Explanation) -> Table:
    """Return a line for each layer, in the order of the graph."""
    total = max(1, sum(layer.macs for layer in found.layers))
    return Table.by(
        found.layers,
        ("Layer", lambda one: one.name),
        ("Type", lambda one: one.op_type),
        ("MACs %", lambda one: fixed(100 * one.macs / total, decimals=1) if one.macs else ""),
        ("SNR dB", lambda one: _decibels(one.own_snr_db)),
        ("SNR so far dB", lambda one: _decibels(one.accumulated_snr_db)),
        ("Logits SNR dB", lambda one: _decibels(one.only.logits_snr_db)),
        ("Only it", lambda one: _signed(one.only.correct - found.validation_float_correct)),
        ("All but it", lambda one: _signed(one.without.correct - found.all_quantized.correct)),
        ("Kept", lambda one: "float" if one.name in found.exclusion.nodes else ""),
        left=2,
    )


_SPLIT_LEGEND = (
    "In true Q/DQ arithmetic. Weights, Activations: images gained (+) or lost (-) if only these are quantized;"
    " Together: what both cost beyond that. Drop against FP32 (after <= its one-sided 95 % upper bound)."
)
_KERNEL_LEGEND = (
    "The runtime's share, beside true Q/DQ arithmetic on the same test images: images gained or lost, images whose"
    " first class is another, and the logits' signal-to-noise ratio against true arithmetic."
)
_LAYER_LEGEND = (
    "SNR: at the layer's output if only it is quantized; so far: there if all are. Only it, All but it: images gained"
    " or lost against FP32, and against all layers quantized."
)


def _jsonable(value: Any) -> Any:
    """Do as `to_jsonable` does, and add to a record what follows from it."""
    if isinstance(value, (tuple, list)):
        return [_jsonable(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return to_jsonable(value)
    names = (*value.__dataclass_fields__, *(name for name in _FOLLOWS if hasattr(value, name)))
    return {name: _jsonable(getattr(value, name)) for name in names}


def _drop(effect: Effect) -> str:
    return f"{fixed(effect.drop_pp)} pp ({effect.correct} of {effect.total} right)"


def _signed(images: int) -> str:
    return f"{images:+d}" if images else "0"


def _decibels(value: float | None) -> str:
    return _NO_NOISE if value is None else significant(value)


def layers_figure(found: Explanation) -> Figure:
    """Return two panels over the layers in the order of the graph: signal-to-noise ratios, and images right."""
    figure = new_figure(11, 2.0 + _LAYER_INCHES * len(found.layers))
    noise, images = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = list(range(len(found.layers)))
    _draw_noise(noise, found.layers, places)
    _draw_images(images, found, places)
    noise.set_yticks(places, [_label(layer, found) for layer in found.layers], fontsize=7)
    noise.set_ylim(len(places) - 0.4, -0.6)
    head = f"{found.model} {found.variant}, int8 for {found.placement}: each layer's share of the INT8 drop"
    figure.suptitle(f"{head}, {found.validation_images} validation images", x=0.01, ha="left", fontsize=11)
    return figure


def _draw_noise(axes: Axes, layers: Sequence[LayerEffect], places: Sequence[int]) -> None:
    series = {
        "logits, only this layer quantized": [layer.only.logits_snr_db for layer in layers],
        "this layer's output, only it quantized": [layer.own_snr_db for layer in layers],
        "this layer's output, all quantized": [layer.accumulated_snr_db for layer in layers],
    }
    for (name, values), colour, shape in zip(series.items(), colours(list(series)).values(), "os^", strict=True):
        pairs = [(value, place) for value, place in zip(values, places, strict=True) if value is not None]
        axes.scatter(
            [value for value, _ in pairs], [place for _, place in pairs], s=22, marker=shape, color=colour, label=name
        )
    for place in places:
        axes.axhline(place, color="#EEEEEE", linewidth=0.6, zorder=0)
    quieten(axes)
    axes.set_xlabel("signal-to-noise ratio, dB (right is better)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=1, frameon=False, fontsize=7)


def _draw_images(axes: Axes, found: Explanation, places: Sequence[int]) -> None:
    shown = colours(["only", "without"])
    only = [layer.only.correct - found.validation_float_correct for layer in found.layers]
    without = [layer.without.correct - found.all_quantized.correct for layer in found.layers]
    axes.barh([place - 0.2 for place in places], only, 0.38, color=shown["only"], label="only it in INT8, against FP32")
    axes.barh(
        [place + 0.2 for place in places],
        without,
        0.38,
        color=shown["without"],
        label="all but it in INT8, against all in INT8",
    )
    axes.axvline(0, color=GREY, linewidth=0.8)
    drop = found.all_quantized.correct - found.validation_float_correct
    axes.axvline(drop, color=PALE, linewidth=1, linestyle="--", label=f"all in INT8, against FP32: {drop:+d}")
    quieten(axes)
    axes.tick_params(axis="y", length=0)
    reach = 1.1 * max(1, *(abs(count) for count in (*only, *without, drop)))
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("images right, gained or lost")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=1, frameon=False, fontsize=7)


def _label(layer: LayerEffect, found: Explanation) -> str:
    name = layer.name if len(layer.name) <= _NAME_LENGTH else f"...{layer.name[-_NAME_LENGTH:]}"
    return f"{name} (float)" if layer.name in found.exclusion.nodes else name
