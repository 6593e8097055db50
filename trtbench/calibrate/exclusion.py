"""How near quantized logits come to the float ones, and the cheapest layers to keep in higher precision. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray


Name = TypeVar("Name")

_APART = 100.0  # times the power of the next quieter channel: beside it, noise of the louder one says nothing of it
_FEW = 100  # one of so many channels is one that never fires, not what the output tells
_NOTHING = float(np.finfo(np.float32).eps) ** 2  # of the power of the loudest channel: what float32 rounds away


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Logits beside the float network's, without labels.

    `snr_db` is of logits less their mean over the classes, which no softmax sees; None where there is no noise.
    `agreement` is the share of the images that get the same class; None of outputs that are no classes.
    """

    snr_db: float | None
    agreement: float | None
    images: int


def judge(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> Judgement:
    """Compare logits (images, classes) with the float network's."""
    same = logits.argmax(axis=1) == reference.argmax(axis=1)
    snr_db = signal_to_noise_db(*powers(_centred(reference), _centred(logits)))
    return Judgement(snr_db=snr_db, agreement=float(same.mean()), images=len(logits))


def judge_outputs(found: Sequence[NDArray[np.float32]], reference: Sequence[NDArray[np.float32]]) -> Judgement:
    """Compare outputs (images, ...) that are no classes likewise: the worst group of channels of the worst output."""
    ratios = []
    for here, wanted in zip(found, reference, strict=True):
        signal, noise = (one.sum(axis=0) for one in channel_powers(wanted, here))
        groups = [*channel_groups(signal), slice(None)]
        ratios += [signal_to_noise_db(float(signal[one].sum()), float(noise[one].sum())) for one in groups]
    snr_db = min((one for one in ratios if one is not None), default=None)
    return Judgement(snr_db=snr_db, agreement=None, images=len(found[0]))


def nearest(found: Mapping[Name, Judgement]) -> Name:
    """Return whose logits have the least noise among those that agree on as many images as the best, but one.

    An image is what chance decides; several are not, whatever the noise is.
    """
    shares = {name: 1.0 if one.agreement is None else one.agreement for name, one in found.items()}
    most = max(shares.values())
    able = {name: one for name, one in found.items() if (most - shares[name]) * one.images < 1.5}  # noqa: PLR2004
    return max(able, key=lambda name: math.inf if (snr_db := able[name].snr_db) is None else snr_db)


def lost_and_gained(
    logits: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[int, int]:
    """Count the images that only the float network gets right, and those that only these logits do."""
    right, was_right = (one.argmax(axis=1) == labels for one in (logits, reference))
    return int((was_right & ~right).sum()), int((right & ~was_right).sum())


def powers(reference: NDArray[np.float32], values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the sums of squares of the reference and of the difference; sums over batches add up."""
    wide = reference.astype(np.float64)
    return float(np.square(wide).sum()), float(np.square(values - wide).sum())


def channel_powers(
    wanted: NDArray[np.float32], found: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of squares of an output (images, ...) and of the difference from it, (images, channels) each.

    Channels are along axis 1, as ONNX has them, but where the shape tells otherwise: (boxes, channels), of more boxes
    than channels, or (..., side, side, channels). Numbers without a place are one channel.
    """
    wide = wanted.astype(np.float64)
    axis = _channel_axis(wide.shape)
    others = tuple(one for one in range(1, wide.ndim) if one != axis)
    signal, noise = (
        np.square(one).sum(axis=others).reshape(len(wide), wide.shape[axis] if axis else 1)
        for one in (wide, found - wide)
    )
    return signal, noise


def _channel_axis(shape: Sequence[int]) -> int:
    """Return the axis of the channels as far as a shape (images, ...) tells; 0 of (images, numbers)."""
    last = len(shape) - 1
    if last < 2:  # noqa: PLR2004
        return 0
    is_last = shape[1] > shape[2] if last == 2 else shape[-3] == shape[-2] != shape[-1]  # noqa: PLR2004
    return last if is_last else 1


def channel_groups(power: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Return the channels to be judged beside their whole output, where it has several scales, the loudest first.

    The power of all together is that of the loudest: coordinates in pixels, of 100 dB more than the scores beside them,
    hide that these are ruined. A group that float32 rounds away, or of under 1 % of the channels, tells nothing.
    """
    order = np.argsort(-power, kind="stable")
    falling = power[order]
    groups = np.split(order, np.flatnonzero(falling[1:] * _APART < falling[:-1]) + 1)
    several = groups if len(groups) > 1 else []
    return [one for one in several if power[one[0]] > _NOTHING * falling[0] and len(one) * _FEW >= len(power)]


def signal_to_noise_db(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise), of powers; None without noise, and without a signal."""
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def noise_share(snr_db: float | None) -> float:
    """Return the power of the noise over that of the signal."""
    return 0.0 if snr_db is None else float(10 ** (-snr_db / 10))


def _centred(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = logits - logits.mean(axis=1, keepdims=True)
    return centred


class Measured(Protocol):
    """What a network with some layers in INT8 is measured to lose against the float network.

    `drop_pp` are percentage points, `noise` is the power of the logits' difference over that of the float logits.
    """

    @property
    def drop_pp(self) -> float: ...  # noqa: D102  the class says it
    @property
    def noise(self) -> float: ...  # noqa: D102


class Layer(Protocol):
    """A layer that may be INT8: its node, the multiply-accumulates of one image, and what is lost if `only` it is."""

    @property
    def name(self) -> str: ...  # noqa: D102  the class says it
    @property
    def macs(self) -> int: ...  # noqa: D102
    @property
    def only(self) -> Measured: ...  # noqa: D102


Found = TypeVar("Found", bound=Measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion(Generic[Found]):
    """The cheapest set of layers found that, kept in higher precision, brings the drop within the limit."""

    nodes: tuple[str, ...]
    effect: Found
    macs_share: float


def cheapest_exclusion(
    layers: Sequence[Layer], measure: Callable[[tuple[str, ...]], Found], *, max_drop_pp: float
) -> Exclusion[Found]:
    """Search the layers to keep in higher precision so that the measured drop is at most `max_drop_pp`.

    Cheap is what leaves few multiply-accumulates out of INT8, then few layers. The layers are ranked twice: by the
    noise they alone put on the logits, and by that noise for each multiply-accumulate. Of each ranking the shortest
    prefix that holds is found by bisection; then its members are put back one by one, the largest first, where the
    drop allows. The cheaper of both sets is returned; what it reaches was measured. Optimal it need not be.

    Args:
        layers: all layers of the placement.
        measure: the effect of a network with these layers left out; asked once a set.
        max_drop_pp: the largest accepted drop, percentage points, not below 0.
    """
    known: dict[tuple[str, ...], Found] = {}
    position = {layer.name: index for index, layer in enumerate(layers)}
    macs = {layer.name: layer.macs for layer in layers}

    def holds(nodes: Sequence[str]) -> bool:
        key = tuple(sorted(nodes, key=position.__getitem__))
        if key not in known:
            known[key] = measure(key)
        return known[key].drop_pp <= max_drop_pp

    found = []
    by_noise = sorted(layers, key=lambda layer: -layer.only.noise)
    by_price = sorted(layers, key=lambda layer: -layer.only.noise / (layer.macs + 1))
    for ranking in ([layer.name for layer in by_noise], [layer.name for layer in by_price]):
        nodes = ranking[: _shortest_prefix(ranking, holds)]
        for name in sorted(nodes, key=lambda name: -macs[name]):
            rest = [other for other in nodes if other != name]
            if holds(rest):
                nodes = rest
        found.append(tuple(sorted(nodes, key=position.__getitem__)))
    best = min(found, key=lambda nodes: (sum(macs[name] for name in nodes), len(nodes)))
    holds(best)
    share = sum(macs[name] for name in best) / max(1, sum(macs.values()))
    return Exclusion(nodes=best, effect=known[best], macs_share=share)


def _shortest_prefix(ranking: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> int:
    """Return a length whose prefix holds and whose predecessor was seen not to, or 0; all layers out always hold."""
    if holds(ranking[:0]):
        return 0
    low, high = 0, len(ranking)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(ranking[:middle]) else (middle, high)
    return high
