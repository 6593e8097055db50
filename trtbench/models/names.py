"""Which tensor of a checkpoint is which of the network's: by name, without a prefix, by alias, or by order and shape.

Only names and shapes are looked at here. Both sides are cut into units (the tensors of one module), of one kind each.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

Shape = tuple[int, ...]
Kind = Literal["convolution", "norm", "linear layer", "parameter"]

OPTIONAL = "num_batches_tracked"  # unused in eval mode; older checkpoints lack it
# Words for the shortcut's projection and for the classifier; the first of each is torchvision's.
_ALIASES = {
    **dict.fromkeys(
        ("shortcut", "skip", "skip_connection", "id_mapping", "identity", "proj", "projection"), "downsample"
    ),
    **dict.fromkeys(("linear", "classifier", "head", "last_linear", "final_fc", "output"), "fc"),
}
_EXAMPLES = 3
_MAX_PREFIX = 4  # parts: a wrapper around a wrapper around a wrapper, and one to spare


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """One thing that does not fit: the layer or what it concerns, what the network has, what the checkpoint has."""

    layer: str
    expected: str
    got: str
    shapes: tuple[Shape, Shape] = ((), ())

    def differs_in(self, dimension: int) -> bool:
        """Say whether both shapes have this dimension, and it differs while those behind it are the same."""
        one, two = self.shapes
        return (
            one[dimension : dimension + 1] != two[dimension : dimension + 1]
            and one[dimension + 1 :] == two[dimension + 1 :]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """The checkpoint's key for each of the network's keys, how they were found, and what found no partner.

    `candidates` are the prefixes of several networks, each of which fits; then nothing is named.
    """

    keys: dict[str, str]
    candidates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    misfits: tuple[Misfit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The tensors of one module: their shapes by the last part of their key."""

    path: str
    shapes: dict[str, Shape]

    @property
    def kind(self) -> Kind:
        """What kind of module holds such tensors."""
        dims = len(self.shapes.get("weight", ()))
        if dims > 2:  # noqa: PLR2004  output channels, input channels, kernel
            return "convolution"
        if dims == 2:  # noqa: PLR2004  outputs, inputs
            return "linear layer"
        return "norm" if dims == 1 or "running_mean" in self.shapes else "parameter"

    @property
    def kernel(self) -> Hashable:
        """What pruning does not change: the kernel's size, and whether the convolution is depthwise."""
        shape = self.shapes.get("weight", ())
        leaves = frozenset(self.shapes) - {OPTIONAL}
        return (self.kind, shape[2:], len(shape) > 2 and shape[0] > 1 == shape[1], leaves)  # noqa: PLR2004  as in kind

    @property
    def full(self) -> Hashable:
        """Everything: kind and all shapes."""
        return (self.kind, tuple(sorted(item for item in self.shapes.items() if item[0] != OPTIONAL)))

    @property
    def is_shortcut(self) -> bool:
        """Whether its name says that it projects a shortcut."""
        return any(_ALIASES.get(part, part) == "downsample" for part in self.path.split("."))


def name_tensors(network: Mapping[str, Shape], checkpoint: Mapping[str, Shape], *, is_ordered: bool = True) -> Naming:
    """Find the checkpoint's tensor for each tensor of the network.

    Args:
        network: shapes by key, in the order in which the modules were defined.
        checkpoint: the same of the checkpoint.
        is_ordered: False where the checkpoint's order says nothing; its keys are then sorted as people count.
    """
    checkpoint = dict(checkpoint)
    if not is_ordered:
        checkpoint = {key: checkpoint[key] for key in sorted(checkpoint, key=_natural)}
    return _by_prefix(network, checkpoint) or _by_unit(network, checkpoint, is_ordered=is_ordered)


def _natural(key: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", key)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _by_prefix(network: Mapping[str, Shape], checkpoint: Mapping[str, Shape]) -> Naming | None:
    """Match keys that are equal but for a prefix; what stands outside the prefix belongs to another network."""
    fitting = _fitting_prefixes(network, checkpoint)
    averaged = [prefix for prefix in fitting if "ema" in re.split(r"[._]", prefix.lower())]
    if len(fitting) == 2 and len(averaged) == 1:  # noqa: PLR2004  a network and its running average, which scores
        fitting = averaged
    if not fitting:
        return None
    prefix = fitting[0]
    if not all(other.startswith(prefix) for other in fitting):  # one that stands inside another is a part of its
        return Naming(keys={}, candidates=tuple(name.removesuffix(".") for name in fitting))
    keys = {key: prefix + key for key in network if prefix + key in checkpoint}
    used = set(keys.values())
    outside = [key for key in checkpoint if key not in used]
    notes = [f"took the prefix {prefix!r} off the checkpoint's names"] if prefix else []
    notes += [f"left out what stands outside of it: {', '.join(outside[:_EXAMPLES])}"] if outside else []
    return Naming(keys=keys, notes=tuple(notes))


def _fitting_prefixes(network: Mapping[str, Shape], checkpoint: Mapping[str, Shape]) -> list[str]:
    """Return the prefixes below which the network stands whole, and nothing else but whole networks again."""
    needed = {key for key in network if not key.endswith(OPTIONAL)}
    fitting: list[str] = []
    for prefix in reversed(_prefixes(checkpoint, shared_by=len(needed))):  # those inside others first
        names = {key.removeprefix(prefix) for key in checkpoint if key.startswith(prefix)}
        extra = {prefix + name for name in names - set(network)}
        if needed <= names and all(key.startswith(tuple(fitting)) for key in extra):
            fitting.append(prefix)
    return fitting[::-1]


def _prefixes(keys: Iterable[str], *, shared_by: int) -> list[str]:
    """Return the prefixes that end with a dot and that enough keys share, the shortest first."""
    counts = Counter([""] * shared_by)
    for key in keys:
        parts = key.split(".")[:-1][:_MAX_PREFIX]
        counts.update(".".join(parts[:count]) + "." for count in range(1, len(parts) + 1))
    return sorted((prefix for prefix, count in counts.items() if count >= shared_by), key=lambda text: text.count("."))


def _by_unit(network: Mapping[str, Shape], checkpoint: Mapping[str, Shape], *, is_ordered: bool) -> Naming:
    ours, theirs = units_of(network), units_of(checkpoint)
    by_alias = _by_alias(ours, theirs)
    if by_alias:
        renamed = [f"{mine.path} <- {other.path}" for mine, other in by_alias if not other.path.endswith(mine.path)]
        note = f"matched by name, with aliases: {', '.join(renamed[:_EXAMPLES])}"
        return Naming(keys=_keys(by_alias), notes=(note,))
    pairs = _by_order(ours, theirs)
    if pairs:
        tally = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in Counter(u.kind for u in ours).items())
        lost = "" if is_ordered else " (this format keeps no order: the names were sorted)"
        note = f"the checkpoint has names of its own: {tally} matched by order and shape{lost}"
        example = ", ".join(f"{mine.path} <- {other.path}" for mine, other in pairs[:_EXAMPLES])
        return Naming(keys=_keys(pairs), notes=(f"{note}, as {example}",))
    return Naming(keys={}, misfits=_unmatched(ours, theirs))


def units_of(shapes: Mapping[str, Shape]) -> tuple[Unit, ...]:
    """Cut a state dict into units, in order of first appearance."""
    units: dict[str, dict[str, Shape]] = defaultdict(dict)
    for key, shape in shapes.items():
        path, _, leaf = key.rpartition(".")
        units[path][leaf] = shape
    return tuple(Unit(path=path, shapes=leaves) for path, leaves in units.items())


def _keys(pairs: Iterable[tuple[Unit, Unit]]) -> dict[str, str]:
    return {
        f"{mine.path}.{leaf}".lstrip("."): f"{other.path}.{leaf}".lstrip(".")
        for mine, other in pairs
        for leaf in mine.shapes
        if leaf in other.shapes
    }


Pairs = list[tuple[Unit, Unit]]


def _by_alias(ours: Sequence[Unit], theirs: Sequence[Unit]) -> Pairs | None:
    mine = {_canonical(unit.path): unit for unit in ours}
    for prefix in _prefixes((f"{unit.path}.x" for unit in theirs), shared_by=len(ours)):
        inside = [unit for unit in theirs if f"{unit.path}.".startswith(prefix)]
        other = {_canonical(unit.path.removeprefix(prefix)): unit for unit in inside}
        if set(mine) == set(other) and len(mine) == len(ours) and len(other) == len(theirs):
            pairs = [(unit, other[name]) for name, unit in mine.items()]
            return pairs if all(one.kernel == two.kernel for one, two in pairs) else None
    return None


def _canonical(path: str) -> str:
    return ".".join(_ALIASES.get(part, part) for part in path.split("."))


def _by_order(ours: Sequence[Unit], theirs: Sequence[Unit]) -> Pairs | None:
    """Match by the strictest rule that pairs all: full shapes before kernels, the same sequence before the same bag."""
    hints = Counter(u.kind for u in ours if u.is_shortcut) == Counter(u.kind for u in theirs if u.is_shortcut)

    def full(unit: Unit) -> Hashable:
        return (unit.full, hints and unit.is_shortcut)

    def kernel(unit: Unit) -> Hashable:
        return (unit.kernel, hints and unit.is_shortcut)

    for signature in (full, kernel):
        if [signature(unit) for unit in ours] == [signature(unit) for unit in theirs]:
            return list(zip(ours, theirs, strict=True))
        pairs = _in_any_order(ours, theirs, signature)
        if pairs:
            return pairs
    return None


def _in_any_order(ours: Sequence[Unit], theirs: Sequence[Unit], signature: Callable[[Unit], Hashable]) -> Pairs | None:
    """Pair equal signatures in their order; a norm goes with its convolution, wherever that one went."""
    if Counter(signature(unit) for unit in ours) != Counter(signature(unit) for unit in theirs):
        return None
    my_norms, their_norms = _norms_by_convolution(ours), _norms_by_convolution(theirs)
    waiting = _queues((unit for unit in theirs if unit.kind != "norm"), signature)
    pairs: Pairs = []
    for unit in ours:
        if unit.kind != "norm":
            other = waiting[signature(unit)].pop(0)
            pairs.append((unit, other))
            norms = my_norms.pop(unit.path, None), their_norms.pop(other.path, None)
            if norms[0] and norms[1]:
                pairs.append((norms[0], norms[1]))
            elif norms[0] or norms[1]:
                return None
    paired = {one.path for one, _ in pairs}, {two.path for _, two in pairs}
    free = (
        [unit for unit in ours if unit.path not in paired[0]],
        [unit for unit in theirs if unit.path not in paired[1]],
    )
    return pairs + list(zip(*free, strict=True))


def _queues(units: Iterable[Unit], signature: Callable[[Unit], Hashable]) -> dict[Hashable, list[Unit]]:
    queues: dict[Hashable, list[Unit]] = defaultdict(list)
    for unit in units:
        queues[signature(unit)].append(unit)
    return queues


def _norms_by_convolution(units: Sequence[Unit]) -> dict[str, Unit]:
    """Give each norm the convolution of its width whose path is nearest, the earliest of equals, each only once."""
    free = [unit for unit in units if unit.kind == "convolution"]
    norms: dict[str, Unit] = {}
    for norm in (unit for unit in units if unit.kind == "norm"):
        width = next((shape[0] for shape in norm.shapes.values() if shape), 0)
        fitting = [conv for conv in free if conv.shapes["weight"][0] == width]
        if fitting:
            nearest = max(fitting, key=lambda conv: _common(conv.path, norm.path))
            free.remove(nearest)
            norms[nearest.path] = norm
    return norms


def _common(one: str, two: str) -> int:
    pairs = zip(one.split("."), two.split("."), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _unmatched(ours: Sequence[Unit], theirs: Sequence[Unit]) -> tuple[Misfit, ...]:
    """Name the layers without a partner where the names are shared, else how many of each kind there are."""
    mine = {_canonical(unit.path): unit for unit in ours}
    other = {_canonical(_stripped(unit.path)): unit for unit in theirs}
    absent = [
        Misfit(layer=unit.path, expected=describe(unit), got="nothing")
        for key, unit in mine.items()
        if key not in other
    ]
    extra = [
        Misfit(layer=unit.path, expected="nothing", got=describe(unit))
        for key, unit in other.items()
        if key not in mine
    ]
    if len(set(mine) & set(other)) * 2 >= len(mine) and absent + extra:
        return tuple(absent + extra)
    counts = Counter(unit.kind for unit in ours), Counter(unit.kind for unit in theirs)
    kinds = [kind for kind in counts[0] | counts[1] if counts[0][kind] != counts[1][kind]]
    if kinds:
        return tuple(
            Misfit(layer=_plural(kind, 2), expected=str(counts[0][kind]), got=str(counts[1][kind])) for kind in kinds
        )
    return tuple(
        Misfit(layer=one.path, expected=describe(one), got=f"{two.path}, {describe(two)}")
        for one, two in zip(ours, theirs, strict=True)
        if one.kernel != two.kernel
    )


def _stripped(path: str) -> str:
    return path.removeprefix("module.").removeprefix("model.")


def describe(unit: Unit) -> str:
    """Say what a unit is in a few words."""
    shape = unit.shapes.get("weight", next(iter(unit.shapes.values())))
    return f"a {unit.kind} of {' x '.join(map(str, shape)) or 'one number'}"


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else f"{kind}s"
