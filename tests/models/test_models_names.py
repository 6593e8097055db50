from __future__ import annotations

import itertools

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trtbench.models import build_model
from trtbench.models.names import Naming, Unit, describe, name_tensors, units_of
from trtbench.models.widths import shapes_of

Shapes = dict[str, tuple[int, ...]]


def shapes(name: str) -> Shapes:
    with torch.device("meta"):
        return shapes_of(build_model(name, num_classes=10).state_dict())


RESNET20 = shapes("resnet20")


def truth(naming: Naming, renamed: dict[str, str]) -> None:
    """Compare with the renaming that made the checkpoint."""
    assert naming.misfits == ()
    assert naming.keys == {ours: theirs for theirs, ours in renamed.items()}


def reordered(network: Shapes, rename: dict[str, str], *, order: list[str]) -> tuple[Shapes, dict[str, str]]:
    """Rename the parts of each path, and list the modules in the order of the parts given."""

    def rank(key: str) -> tuple[str, int]:
        parts = key.split(".")
        block = ".".join(parts[:2]) if parts[0].startswith("layer") else parts[0]
        leaf = parts[2] if parts[0].startswith("layer") else ""
        return (block if block not in {"conv1", "bn1"} else "", order.index(leaf) if leaf else 0)

    keys = sorted(network, key=rank)
    theirs = {".".join(rename.get(part, part) for part in key.split(".")): key for key in keys}
    return {new: network[old] for new, old in theirs.items()}, theirs


def test_equal_names_need_no_note() -> None:
    naming = name_tensors(RESNET20, dict(reversed(RESNET20.items())))
    assert naming.keys == {key: key for key in RESNET20}
    assert naming.notes == ()


def test_the_counters_of_batch_norm_may_be_absent() -> None:
    older = {key: shape for key, shape in RESNET20.items() if not key.endswith("num_batches_tracked")}
    naming = name_tensors(RESNET20, older)
    assert naming.keys == {key: key for key in older}
    assert not naming.misfits


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "module.model.", "ema_model.module."])
def test_a_prefix_is_taken_off_and_said(prefix: str) -> None:
    naming = name_tensors(RESNET20, {prefix + key: shape for key, shape in RESNET20.items()})
    assert naming.keys == {key: prefix + key for key in RESNET20}
    assert naming.notes == (f"took the prefix {prefix!r} off the checkpoint's names",)


def test_what_stands_outside_of_the_prefix_is_left_out_and_said() -> None:
    checkpoint = {"criterion.weight": (10,), **{f"model.{key}": shape for key, shape in RESNET20.items()}}
    naming = name_tensors(RESNET20, checkpoint)
    assert naming.keys["fc.bias"] == "model.fc.bias"
    assert naming.notes[1] == "left out what stands outside of it: criterion.weight"


def prefixed(*prefixes: str) -> Shapes:
    return {prefix + key: shape for prefix in prefixes for key, shape in RESNET20.items()}


@pytest.mark.parametrize("prefixes", [("teacher.", "student."), ("model.", "ema.", "teacher."), ("a.ema.", "b.ema.")])
def test_several_whole_networks_are_candidates_and_none_is_taken(prefixes: tuple[str, ...]) -> None:
    naming = name_tensors(RESNET20, prefixed(*prefixes))
    assert naming.keys == {}
    assert sorted(naming.candidates) == sorted(prefix.removesuffix(".") for prefix in prefixes)


@pytest.mark.parametrize(
    ("prefixes", "taken"),
    [
        (("model.", "ema.module."), "ema.module."),
        (("model_ema.", "model."), "model_ema."),
        (("", "ema."), "ema."),
        (("", "teacher."), ""),  # a teacher that is a part of its student
        (("schema.", "schema.teacher."), "schema."),
    ],
)
def test_the_average_beside_a_network_is_taken_and_the_network_around_another(
    prefixes: tuple[str, ...], taken: str
) -> None:
    naming = name_tensors(RESNET20, prefixed(*prefixes))
    assert naming.keys == {key: taken + key for key in RESNET20}
    assert naming.notes[-1].startswith("left out what stands outside of it: ")


def test_usual_words_for_shortcut_and_classifier_are_aliases_whatever_the_order() -> None:
    rename = {"downsample": "shortcut", "fc": "linear"}
    theirs = {"module." + ".".join(rename.get(part, part) for part in key.split(".")): key for key in RESNET20}
    checkpoint = {new: RESNET20[old] for new, old in sorted(theirs.items())}
    naming = name_tensors(RESNET20, checkpoint, is_ordered=False)
    truth(naming, theirs)
    assert naming.notes[0].startswith(
        "matched by name, with aliases: layer2.0.downsample.0 <- module.layer2.0.shortcut.0"
    )


FOREIGN = {"conv1": "first", "bn1": "second", "conv2": "third", "bn2": "fourth", "fc": "top"}


@pytest.mark.parametrize("shortcut", ["downsample", "shortcut", "side"])
@pytest.mark.parametrize(
    "order",
    [
        ["conv1", "bn1", "conv2", "bn2", "downsample"],
        ["downsample", "conv1", "bn1", "conv2", "bn2"],
        ["conv1", "bn1", "downsample", "conv2", "bn2"],
        ["conv1", "conv2", "bn1", "bn2", "downsample"],
        ["conv1", "conv2", "downsample", "bn1", "bn2"],
        ["bn1", "bn2", "conv1", "conv2", "downsample"],
    ],
)
def test_names_of_their_own_are_matched_wherever_shortcut_and_norms_are_listed(shortcut: str, order: list[str]) -> None:
    checkpoint, theirs = reordered(RESNET20, {**FOREIGN, "downsample": shortcut}, order=order)
    naming = name_tensors(RESNET20, checkpoint)
    truth(naming, theirs)
    assert "21 convolutions, 21 norms, 1 linear layer matched by order and shape" in naming.notes[0]


def test_a_bottlenecks_shortcut_is_told_from_its_last_convolution_by_its_name() -> None:
    with torch.device("meta"):
        network = shapes_of(torchvision.models.resnet50(weights=None, num_classes=10).state_dict())
    foreign = {**FOREIGN, "downsample": "shortcut", "conv3": "fifth", "bn3": "sixth"}
    order = ["downsample", "conv1", "bn1", "conv2", "bn2", "conv3", "bn3"]
    checkpoint, theirs = reordered(network, foreign, order=order)
    truth(name_tensors(network, checkpoint), theirs)


def narrower(network: Shapes, factor: int) -> Shapes:
    fixed = {"fc.weight": (10, network["fc.weight"][1] // factor), "fc.bias": (10,)}
    stem = network["conv1.weight"]
    return {
        **{key: (*(size // factor for size in shape[:2]), *shape[2:]) for key, shape in network.items()},
        **fixed,
        "conv1.weight": (stem[0] // factor, *stem[1:]),
    }


@pytest.mark.parametrize(
    "order",
    [["conv1", "bn1", "conv2", "bn2", "downsample"], ["downsample", "conv1", "conv2", "bn1", "bn2"]],
)
def test_a_pruned_checkpoint_with_names_of_its_own_is_matched_by_kernels(order: list[str]) -> None:
    checkpoint, theirs = reordered(narrower(RESNET20, 2), {**FOREIGN, "downsample": "side"}, order=order)
    truth(name_tensors(RESNET20, checkpoint), theirs)


def test_names_without_an_order_are_sorted_as_people_count_and_said() -> None:
    network = {f"blocks.{number}.weight": (4, 4 + number, 3, 3) for number in range(12)}
    theirs = {f"layer{number}.weight": f"blocks.{number}.weight" for number in range(12)}
    checkpoint = {new: (2, *network[old][1:]) for new, old in sorted(theirs.items())}
    naming = name_tensors(network, checkpoint, is_ordered=False)
    truth(naming, theirs)
    assert "this format keeps no order: the names were sorted" in naming.notes[0]


def test_norms_before_their_convolutions_are_matched_in_order() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 6, 1), nn.Linear(6, 2))
    network = shapes_of(model.state_dict())
    theirs = {f"net.x{key}": key for key in network}
    truth(name_tensors(network, {new: network[old] for new, old in theirs.items()}), theirs)


@pytest.mark.parametrize("width", [6, 7])
def test_norms_that_cannot_be_given_to_convolutions_on_both_sides_match_nothing(width: int) -> None:
    network: Shapes = {"a.weight": (4, 3, 3, 3), "n.weight": (4,), "b.weight": (6, 4, 1, 1)}
    checkpoint: Shapes = {"x.weight": (6, 4, 1, 1), "y.weight": (5, 3, 3, 3), "z.weight": (width,)}
    assert name_tensors(network, checkpoint).misfits


def test_bare_parameters_are_matched_in_order_too() -> None:
    network: Shapes = {"block.scale": (4, 1, 1), "block.conv.weight": (4, 3, 3, 3)}
    checkpoint: Shapes = {"b.c.weight": (4, 3, 3, 3), "b.scale": (4, 1, 1)}
    assert name_tensors(network, checkpoint).keys == {"block.conv.weight": "b.c.weight", "block.scale": "b.scale"}


@given(st.permutations(range(43)))
def test_any_renaming_that_keeps_the_order_is_found(numbers: list[int]) -> None:
    rename = {unit.path: f"m{number}.op" for unit, number in zip(units_of(RESNET20), numbers, strict=True)}
    theirs = {f"{rename[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": key for key in RESNET20}
    truth(name_tensors(RESNET20, {new: RESNET20[old] for new, old in theirs.items()}), theirs)


def test_layers_without_a_partner_are_named() -> None:
    option_a = shapes("resnet20_a")
    absent = name_tensors(RESNET20, {f"module.{key}": shape for key, shape in option_a.items()})
    assert absent.keys == {}
    first = absent.misfits[0]
    assert (first.layer, first.expected, first.got) == (
        "layer2.0.downsample.0", "a convolution of 32 x 16 x 1 x 1", "nothing"
    )  # fmt: skip
    extra = name_tensors(option_a, RESNET20).misfits[0]
    assert (extra.layer, extra.expected, extra.got) == (
        "layer2.0.downsample.0", "nothing", "a convolution of 32 x 16 x 1 x 1"
    )  # fmt: skip


def test_foreign_names_of_another_network_are_counted_by_kind() -> None:
    option_a = {key.replace("layer", "stage").replace("1", "9"): shape for key, shape in shapes("resnet20_a").items()}
    misfits = name_tensors(RESNET20, option_a).misfits
    assert [(one.layer, one.expected, one.got) for one in misfits] == [
        ("convolutions", "21", "19"),
        ("norms", "21", "19"),
    ]


def test_equal_counts_with_other_kernels_name_the_layers() -> None:
    network: Shapes = {"a.weight": (4, 3, 7, 7), "fc.weight": (2, 4)}
    checkpoint: Shapes = {"x.weight": (4, 3, 3, 3), "y.weight": (2, 4)}
    (misfit,) = name_tensors(network, checkpoint).misfits
    assert (misfit.layer, misfit.expected) == ("a", "a convolution of 4 x 3 x 7 x 7")
    assert misfit.got == "x, a convolution of 4 x 3 x 3 x 3"


def test_a_convolution_with_a_bias_is_not_one_without() -> None:
    network: Shapes = {"a.weight": (4, 3, 3, 3), "fc.weight": (2, 4)}
    checkpoint: Shapes = {"x.weight": (4, 3, 3, 3), "x.bias": (4,), "y.weight": (2, 4)}
    assert name_tensors(network, checkpoint).misfits


def test_a_unit_says_what_it_is() -> None:
    assert describe(Unit(path="", shapes={"weight": (2, 4)})) == "a linear layer of 2 x 4"
    assert describe(Unit(path="a", shapes={"scale": ()})) == "a parameter of one number"
    assert describe(Unit(path="a", shapes={"running_mean": (3,)})) == "a norm of 3"


def test_many_foreign_keys_are_refused_quickly() -> None:
    checkpoint: Shapes = {".".join(("a", *itertools.repeat("b", 50), str(number))): (1,) for number in range(20_000)}
    assert name_tensors(RESNET20, checkpoint).misfits
