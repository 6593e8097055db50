from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from trtbench.errors import CheckpointError
from trtbench.models.states import State, clean_state

WEIGHT = torch.arange(6.0).reshape(2, 3)


def clean(content: Any, *, max_bytes: int = 10**6, weights_from: str | None = None) -> State:
    return clean_state(content, path=Path("weights.pt"), max_bytes=max_bytes, weights_from=weights_from)


def refused(content: Any, *, max_bytes: int = 10**6) -> str:
    with pytest.raises(CheckpointError) as caught:
        clean(content, max_bytes=max_bytes)
    assert caught.value.cure
    return str(caught.value)


def test_a_bare_state_dict_is_taken_as_it_is() -> None:
    state = clean(OrderedDict({"fc.weight": WEIGHT}))
    assert state.notes == ()
    assert torch.equal(state.tensors["fc.weight"], WEIGHT)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"w": WEIGHT}},
        {"model": {"w": WEIGHT}},
        {"net": {"w": WEIGHT}},
        {"model_state_dict": {"w": WEIGHT}},
        {"epoch": 3, "model": {"state_dict": {"w": WEIGHT}}},
        {"epoch": 3, "my_own_name": {"w": WEIGHT}},
        {"acc": torch.tensor(93.5), "net": {"w": WEIGHT}, "optimizer": {"state": {}}},
    ],
)
def test_a_wrapped_state_dict_is_found_and_said(content: dict[str, Any]) -> None:
    state = clean(content)
    assert list(state.tensors) == ["w"]
    assert state.notes[0].startswith("took ")


def test_averaged_weights_come_before_the_last_ones() -> None:
    state = clean({"state_dict": {"w": WEIGHT}, "state_dict_ema": {"w": WEIGHT + 1}})
    assert torch.equal(state.tensors["w"], WEIGHT + 1)
    assert state.notes == ("took 'state_dict_ema' of the checkpoint, beside state_dict",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([WEIGHT], "got list"),
        (WEIGHT, "got Tensor"),
        ({}, "got nothing"),
        (None, "got NoneType"),
        ({"epoch": 3, "lr": 0.1}, "got keys epoch, lr"),
        ({"a": {"b": {"c": {"d": {"w": WEIGHT}}}}}, "got keys w"),
    ],
)
def test_what_holds_no_state_dict_is_refused(content: Any, words: str) -> None:
    assert words in refused(content)


@pytest.mark.parametrize(
    ("content", "candidates", "example"),
    [
        ({"generator": {"w": WEIGHT}, "discriminator": {"w": WEIGHT}}, "generator, discriminator", "generator"),
        (
            {"model": {"w": WEIGHT}, "net": {"w": WEIGHT}, "optimizer": {"state": {0: {"m": WEIGHT}}}},
            "model, net",
            "model",
        ),
        ({"ema": {"w": WEIGHT}, "model_ema": {"w": WEIGHT}, "model": {"w": WEIGHT}}, "model_ema, ema", "model_ema"),
        ({"teacher": {"w": WEIGHT}, "student": {"w": WEIGHT}}, "teacher, student", "student"),
        ({"teacher": {"w": WEIGHT}, "pupil": {"w": WEIGHT}}, "teacher, pupil", "pupil"),
    ],
)
def test_several_networks_are_refused_by_name_until_one_is_chosen(
    content: dict[str, Any], candidates: str, example: str
) -> None:
    message = refused(content)
    assert f"could be meant: {candidates}" in message
    assert f"--weights-from {example} (" in message
    for name in candidates.split(", "):
        assert list(clean(content, weights_from=name).tensors) == ["w"]


def test_a_prefix_chooses_inside_what_wraps_it_and_one_that_is_not_there_names_those_that_are() -> None:
    content = {"epoch": 3, "state_dict": {"teacher.w": WEIGHT, "student.w": WEIGHT + 1}}
    state = clean(content, weights_from="student.")
    assert list(state.tensors) == ["student.w"]
    assert state.notes == ("took 'student.' of the checkpoint, as asked",)
    with pytest.raises(CheckpointError, match=r"--weights-from pupil: .* it has student, teacher"):
        clean(content, weights_from="pupil")


def test_an_average_that_holds_numbers_only_is_no_state_dict() -> None:
    state = clean({"ema": {"decay": 0.999}, "model": {"w": WEIGHT}})
    assert state.notes == ("took 'model' of the checkpoint, beside ema",)


def test_leftovers_of_training_are_dropped_and_named() -> None:
    content = {
        "fc.weight": WEIGHT,
        "fc.total_ops": torch.zeros(1),
        "n_averaged": torch.tensor(3),
        "aux1.fc2.weight": WEIGHT,
        "epoch": 3,
    }
    state = clean(content)
    assert list(state.tensors) == ["fc.weight"]
    assert state.notes == ("left out of the checkpoint: fc.total_ops, n_averaged, aux1.fc2.weight and 1 more",)


def test_the_name_that_torch_compile_adds_is_taken_off_anywhere() -> None:
    assert list(clean({"module._orig_mod.fc.weight": WEIGHT}).tensors) == ["module.fc.weight"]


def test_masks_of_torch_prune_are_multiplied_in_where_their_module_stood() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2))
    prune.l1_unstructured(model[0], "weight", amount=0.5)  # type: ignore[no-untyped-call]  # untyped in torch
    state = clean(model.state_dict())
    assert next(iter(state.tensors)) == "0.weight"
    assert torch.equal(state.tensors["0.weight"], model.get_submodule("0").weight)  # type: ignore[arg-type]  # a tensor
    assert int((state.tensors["0.weight"] == 0).sum()) == 54
    assert state.notes == ("weight masks of torch.nn.utils.prune multiplied in: 0.weight",)
    assert not any(key.endswith(("_orig", "_mask")) for key in state.tensors)


def test_a_mask_of_another_shape_is_refused() -> None:
    message = refused({"weight_orig": WEIGHT, "weight_mask": torch.ones(2, 1)})
    assert "weight_mask: expected the shape (2, 3) of its weight, got (2, 1)" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_are_said(dtype: torch.dtype) -> None:
    state = clean({"fc.weight": WEIGHT.to(dtype), "fc.bias": WEIGHT[0], "bn.num_batches_tracked": torch.tensor(4)})
    assert state.tensors["fc.weight"].dtype == torch.float32
    assert torch.equal(state.tensors["fc.weight"], WEIGHT)
    assert state.tensors["bn.num_batches_tracked"].dtype == torch.int64
    assert state.notes == (f"1 tensors converted from {str(dtype).removeprefix('torch.')} to float32",)


def _sparse() -> Tensor:
    return WEIGHT.to_sparse()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (WEIGHT.to(torch.int8), "got a tensor of int8"),
        (WEIGHT.to(torch.complex64), "got a tensor of complex64"),
        (_sparse(), "layout sparse_coo"),
        (WEIGHT.to("meta"), "a tensor without data"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tensor: Tensor, words: str) -> None:
    message = refused({"fc.weight": tensor})
    assert words in message
    assert "fc.weight" in message


def test_integer_tables_that_are_no_weights_stay() -> None:
    assert clean({"w": WEIGHT, "table": torch.tensor([1, 2])}).tensors["table"].dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    bad = WEIGHT.clone()
    bad[0, 0] = value
    message = refused({"a.weight": WEIGHT, "b.weight": bad})
    assert "1 of 2 tensors" in message
    assert "NaN or infinity in b.weight" in message


def test_a_double_that_overflows_float32_is_not_finite() -> None:
    assert "infinity" in refused({"w": torch.tensor([1e300], dtype=torch.float64)})


def test_a_tensor_that_claims_more_memory_than_allowed_is_refused_before_it_is_used() -> None:
    assert "at most 0.001 GB of weights, got 4e+03 GB" in refused({"w": torch.zeros(1).expand(10**12)})
