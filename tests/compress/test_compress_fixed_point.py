"""The weight quantizers: the source's bit for bit, grids, reconstruction, learned steps, the method."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trtbench.compress.curvature import columns, damped, round_in_passing
from trtbench.compress.fixed_point import (
    LearnedStep,
    SourceRounding,
    by_reconstruction,
    by_source,
    calibrated_inputs,
    learn_by_source,
    learn_steps,
    quantize,
    storable,
)
from trtbench.compress.method import Context
from trtbench.compress.reconstruct import (
    BINARY,
    ROUNDING_DAMPING,
    TERNARY,
    CodeRange,
    Rounded,
    asymmetric,
    code_range,
    descend,
    error,
    reconstruct,
    refit,
    source_layers,
    symmetric,
    weight_layers,
)
from trtbench.data import load_dataset
from trtbench.errors import DataError
from trtbench.models import build_model
from trtbench.models.container import Grid, from_bytes, to_bytes
from trtbench.models.rounding import input_grids, round_inputs
from trtbench.records import Split
from trtbench.suite import DataConfig, FixedPointVariant, TrainConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray


def asymmetric_in_numpy(w: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """SEEDS 002-14, written down again in NumPy."""
    top = np.float32(2**bits - 1)
    beta = w.min()
    alpha = w.max() - beta
    r = np.round((w - beta) / (alpha + np.float32(1e-8)) * top) / top
    result: NDArray[np.float32] = (r * alpha + beta) * (w != 0)
    return result


def symmetric_in_numpy(w: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """SEEDS 002-15, written down again in NumPy."""
    top = np.float32(2**bits - 1)
    a = np.abs(w).max()
    alpha = np.float32(2) * a
    r = np.round((w + a) / (alpha + np.float32(1e-8)) * top) / top
    result: NDArray[np.float32] = (r * alpha - a) * (w != 0)
    return result


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(1, 8), share=st.sampled_from([0.0, 0.5, 0.9]))
@settings(max_examples=60)
def test_the_sources_quantizers_agree_with_numpy_bit_for_bit(seed: int, bits: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(scale=0.1, size=(8, 4, 3, 3)).astype(np.float32) * (rng.random((8, 4, 3, 3)) >= share)
    w = w.astype(np.float32)
    for ours, theirs in ((asymmetric, asymmetric_in_numpy), (symmetric, symmetric_in_numpy)):
        found = ours(torch.from_numpy(w), bits=bits).numpy()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view(np.uint32), theirs(w, bits).view(np.uint32))


def test_two_bits_by_hand() -> None:
    weight = torch.tensor([-1.0, -0.4, 0.0, 0.1, 2.0])
    # levels -1, 0, 1, 2; -0.4 is nearest to 0, 0.1 too, and the zero stays what it is
    torch.testing.assert_close(asymmetric(weight, bits=2), torch.tensor([-1.0, 0.0, 0.0, 0.0, 2.0]), atol=1e-6, rtol=0)
    # levels -2, -2/3, 2/3, 2: none is zero, but the pruned weight stays zero
    expected = torch.tensor([-2 / 3, -2 / 3, 0.0, 2 / 3, 2.0])
    torch.testing.assert_close(symmetric(weight, bits=2), expected, atol=1e-6, rtol=0)


def test_the_source_leaves_head_and_classifier_in_float() -> None:
    model = build_model("resnet20", num_classes=10)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made, done = by_source(model, scheme="symmetric", bits=3), source_layers(model)
    assert len(done) == 20  # 18 of the blocks, 2 shortcuts
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{name}.weight" for name in done}
    assert set(weight_layers(model)) - set(source_layers(model)) == {"conv1", "fc"}
    assert made.float_layers == ("conv1", "fc")


def test_code_ranges() -> None:
    assert code_range(4) == CodeRange(lowest=-8, highest=7)
    assert (code_range("ternary"), code_range(1)) == (TERNARY, BINARY)
    values = torch.tensor([-3.0, -0.2, 0.0, 0.5, 1.5])
    assert TERNARY.nearest(values).tolist() == [-1, 0, 0, 0, 1]
    assert BINARY.nearest(values).tolist() == [-1, -1, 1, 1, 1]


def _problem(seed: int, *, groups: int = 1, rows: int = 4, depth: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, depth, depth, generator=generator, dtype=torch.float64)
    inputs = torch.randn(groups, 200, depth, generator=generator, dtype=torch.float64) @ mixing
    return torch.randn(groups, rows, depth, generator=generator, dtype=torch.float64), inputs.mT @ inputs


@pytest.mark.parametrize("codes", [TERNARY, BINARY, code_range(2), code_range(3)])
def test_reconstruction_beats_rounding_to_the_nearest(codes: CodeRange) -> None:
    weight, moments = _problem(1, groups=2, rows=16, depth=12)
    found = reconstruct(weight, moments, codes, kept=torch.ones_like(weight, dtype=torch.bool))
    shares = torch.linspace(0.1, 1.2, 40, dtype=torch.float64)
    scales = [share * weight.abs().amax(-1) / codes.highest for share in shares]
    plain = [Rounded(codes=codes.nearest(weight / scale[..., None]), scales=scale) for scale in scales]
    best = torch.stack([error(weight, one, moments) for one in plain]).amin(0)
    assert error(weight, found, moments).sum() < 0.8 * best.sum()
    assert found.codes.min() >= codes.lowest
    assert found.codes.max() <= codes.highest


def test_reconstruction_of_few_ternary_weights_is_close_to_the_best_there_is() -> None:
    weight, moments = _problem(3, rows=8, depth=5)
    found = reconstruct(weight, moments, TERNARY, kept=torch.ones_like(weight, dtype=torch.bool))
    got = error(weight, found, damped(moments, share=ROUNDING_DAMPING))
    best = torch.full_like(got, torch.inf)
    for codes in itertools.product([-1.0, 0.0, 1.0], repeat=5):
        one = Rounded(codes=torch.tensor(codes, dtype=torch.float64).expand_as(weight), scales=found.scales)
        best = best.minimum(
            error(
                weight,
                refit(weight, one, damped(moments, share=ROUNDING_DAMPING)),
                damped(moments, share=ROUNDING_DAMPING),
            )
        )
    assert (best <= got + 1e-9).all()
    assert got.sum() < 1.25 * best.sum()


def test_descent_and_the_scale_never_make_it_worse() -> None:
    weight, moments = _problem(5)
    kept = torch.ones_like(weight, dtype=torch.bool)
    one = Rounded(codes=TERNARY.nearest(weight), scales=torch.full((1, 4), 0.7, dtype=torch.float64))
    better = descend(weight, one, moments, TERNARY, kept=kept)
    best = refit(weight, better, moments)
    errors = [error(weight, step, moments) for step in (one, better, best)]
    assert (errors[1] <= errors[0] + 1e-9).all()
    assert (errors[2] <= errors[1] + 1e-9).all()


def test_a_row_of_zeros_stays_so() -> None:
    weight, moments = _problem(7)
    kept = torch.zeros_like(weight, dtype=torch.bool)
    found = reconstruct(weight * kept, moments, code_range(4), kept=kept)
    assert not found.values.any()
    assert torch.isfinite(found.scales).all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 8, 3, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 6, 2, dilation=2, padding=1, padding_mode="reflect", bias=False),
        nn.Linear(5, 3, bias=False),
    ],
)
def test_columns_times_weights_are_the_layers_outputs(layer: nn.Module) -> None:
    inputs = torch.randn(2, 5) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 7, 7)
    found = columns(layer, inputs)
    weight: torch.Tensor = layer.weight.reshape(len(found), -1, found.shape[2])  # type: ignore[operator]
    products = (found @ weight.mT).permute(0, 2, 1)  # groups, outputs, rows
    outputs = layer(inputs)
    flat = outputs.T if outputs.ndim == 2 else outputs.permute(1, 0, 2, 3).reshape(outputs.shape[1], -1)
    torch.testing.assert_close(products.reshape(flat.shape), flat)


class Small(nn.Module):
    """Two convolutions, one of them grouped, BatchNorm, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, groups=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.norm(self.first(images)))
        logits: torch.Tensor = self.fc(self.second(out).mean((2, 3)))
        return logits


@pytest.fixture
def small() -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_each_layer_sees_the_inputs_that_the_rounded_ones_make(small: Small, images: torch.Tensor) -> None:
    seen: dict[str, torch.Tensor] = {}

    def treat(name: str, layer: nn.Module, moments: Any) -> None:
        seen[name] = moments.own
        layer.weight.zero_()  # type: ignore[operator]

    float_inputs = torch.relu(small.norm(small.first(images)))
    round_in_passing(small, ["first", "second", "fc"], images, treat, seed=0)
    assert list(seen) == ["first", "second", "fc"]
    assert float_inputs.detach().abs().sum() > 0
    constant = torch.relu(small.norm(torch.zeros(1, 8, 1, 1))).expand(24, 8, 8, 8)  # what a zeroed layer makes
    ours = columns(small.second, constant.detach())
    torch.testing.assert_close(seen["second"], (ours.mT @ ours).double())


@pytest.mark.parametrize("bits", [1, "ternary", 2, 4, 8])
def test_every_layer_is_on_its_grid_and_survives_the_file(small: Small, images: torch.Tensor, bits: Any) -> None:
    with torch.no_grad():
        small.second.weight[:, :2] = 0.0
    made = by_reconstruction(small, images, bits=bits, seed=0)
    assert made.float_layers == ()
    for key, grid in made.grids.items():
        levels = 256 if key == "fc.weight" else {1: 3, "ternary": 3}.get(bits, 2**bits if bits != "ternary" else 3)
        assert len(torch.unique(grid.codes)) <= levels
        assert torch.equal(grid.values(), small.get_parameter(key).data)
        assert torch.equal(grid.scales, storable(grid.scales))
    assert not small.second.weight[:, :2].any()
    read = from_bytes(to_bytes(made.packed(facts={})), max_bytes=10**9).values()
    assert all(torch.equal(value, read[key]) for key, value in small.state_dict().items())


def test_eight_bits_change_the_logits_little(small: Small, images: torch.Tensor) -> None:
    with torch.no_grad():
        before = small(images)
        by_reconstruction(small, images, bits=8, seed=0)
        assert (small(images) - before).abs().max() < 0.02 * before.abs().max()


def test_the_record_names_what_is_left_in_float_and_counts_bits(small: Small, images: torch.Tensor) -> None:
    config = FixedPointVariant(kind="fixed_point", name="x", bits=4)
    rebuilt = by_reconstruction(small, images, bits=4, seed=0).record(config)
    assert rebuilt.float_layers == ()
    assert rebuilt.layers == 3
    assert 3 < rebuilt.bits_per_weight < 6
    assert by_source(small, scheme="asymmetric", bits=4).record(config).float_layers == ("first", "fc")


def test_inputs_are_rounded_to_few_bits_and_the_image_to_eight(small: Small, images: torch.Tensor) -> None:
    before = small(images).detach()

    grids = calibrated_inputs(small, images, bits=4)
    round_inputs(small, grids)

    assert {name: (grid.lowest, grid.highest) for name, grid in grids.items()} == {
        "first": (-128, 127),
        "second": (0, 15),  # behind a ReLU
        "fc": (-8, 7),
    }
    assert input_grids(small) == grids
    noise = (small(images) - before).square().mean() / before.square().mean()
    assert 0 < noise < 0.02


def test_scales_are_stored_in_half_precision_where_it_holds_them() -> None:
    scales = torch.tensor([0.1, 2.0**-20, -0.3], dtype=torch.float64)
    found = storable(scales)
    assert found[0] == float(np.float16(0.1))
    assert found[1] == 2.0**-20
    assert found[2] == float(np.float16(-0.3))


def test_the_straight_through_estimator_passes_gradients_unchanged_and_holds_zeros() -> None:
    weight = torch.tensor([[0.0, 0.3], [-0.7, 1.0]], requires_grad=True)
    rounding = SourceRounding(weight.detach(), scheme="asymmetric", bits=2)
    out = rounding(weight)
    assert torch.equal(out, asymmetric(weight.detach(), bits=2))
    torch.autograd.backward((out * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum())
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0.0, 2.0], [3.0, 4.0]]  # the pruned weight does not move
    with torch.no_grad():
        weight[0, 0] = 5.0
    assert rounding(weight)[0, 0] == 0


def test_a_learned_steps_gradients_are_those_of_the_paper() -> None:
    codes = code_range(3)
    grid = Grid(codes=torch.zeros(1, 3, dtype=torch.int32), scales=torch.tensor([0.5]))
    rounding = LearnedStep(grid, codes, kept=torch.ones(1, 3, dtype=torch.bool))
    weight = torch.tensor([[0.6, 10.0, -10.0]], requires_grad=True)
    torch.autograd.backward(rounding(weight).sum())
    # Esser et al. 2020, equation 3: -v/s + round(v/s) inside, Q_P and -Q_N outside; times 1 / sqrt(N Q_P).
    expected = ((-1.2 + 1) + 3 - 4) / np.sqrt(3 * 3)
    assert rounding.step.grad is not None
    assert weight.grad is not None
    assert rounding.step.grad.item() == pytest.approx(expected, rel=1e-6)
    assert weight.grad.tolist() == [[1.0, 0.0, 0.0]]
    torch.testing.assert_close(rounding.grid(weight.detach()).values(), rounding(weight).detach())


def test_learned_steps_agree_with_torchs_own_fake_quantizer() -> None:
    codes, generator = code_range(4), torch.Generator().manual_seed(0)
    weight = torch.randn(6, 20, generator=generator)
    steps = torch.rand(6, generator=generator) * 0.2 + 0.05
    grid = Grid(codes=torch.zeros(6, 20, dtype=torch.int32), scales=steps)
    ours = LearnedStep(grid, codes, kept=torch.ones(6, 20, dtype=torch.bool))(weight)
    theirs = torch.fake_quantize_per_channel_affine(weight, steps, torch.zeros(6, dtype=torch.int32), 0, -8, 7)
    torch.testing.assert_close(ours.detach(), theirs)


def test_training_leaves_plain_weights_on_the_grid_and_zeros_in_place(small: Small, images: torch.Tensor) -> None:
    with torch.no_grad():
        small.second.weight[:, :2] = 0.0
    before = small.first.weight.detach().clone()
    keys = list(small.state_dict())

    def tune(network: nn.Module, **_: Any) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        for _step in range(5):
            optimizer.zero_grad()
            torch.autograd.backward(network(images).square().mean())
            optimizer.step()

    made = learn_steps(by_reconstruction(small, images, bits=2, seed=0), bits=2, tune=tune)
    assert sorted(small.state_dict()) == sorted(keys)
    assert not torch.equal(before, small.first.weight)
    assert all(torch.equal(grid.values(), small.get_parameter(key).data) for key, grid in made.grids.items())
    assert not small.second.weight[:, :2].any()
    learn_by_source(small, scheme="symmetric", bits=3, tune=tune)
    by_source(small, scheme="symmetric", bits=3)
    assert sorted(small.state_dict()) == sorted(keys)
    assert not small.second.weight[:, :2].any()
    assert len(torch.unique(small.second.weight)) <= 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "note"),
    [
        ({"scheme": "asymmetric", "bits": 4}, "left in float: conv1, fc"),
        ({"scheme": "best", "bits": 2, "images": 8}, "bits a weight"),
        ({"scheme": "best", "bits": "ternary", "images": 8, "activations": 4}, "bits a weight"),
        ({"scheme": "best", "bits": 3, "images": 8, "fine_tune": True}, "bits a weight"),
        ({"scheme": "symmetric", "bits": 3, "fine_tune": True}, "left in float: conv1, fc"),
    ],
)
def test_the_method_tells_bits_bytes_and_what_stays_in_float(config: dict[str, Any], note: str) -> None:
    tuned = []

    def tune(network: nn.Module, **_: Any) -> None:
        tuned.append(network)

    dataset = load_dataset(DataConfig(source="digits", size=16))
    variant = FixedPointVariant(kind="fixed_point", name="x", **config)
    network = build_model("resnet20", num_classes=10).eval()
    made = quantize(network, variant, Context(dataset=dataset, budget=TrainConfig(), tune=tune))
    assert made.is_tuned == bool(tuned) == variant.fine_tune
    assert note in " ".join(made.notes)
    assert made.facts["packed_bytes"] < 400_000
    assert bool(input_grids(made.model)) == (variant.activations is not None)
    assert len(torch.unique(made.model.get_parameter("layer1.0.conv1.weight"))) <= 16 * 2**4


def test_without_training_images_nothing_is_rebuilt() -> None:
    dataset = load_dataset(DataConfig(source="digits", size=16))
    empty = replace(dataset, train=Split(images=dataset.train.images[:0], labels=dataset.train.labels[:0]))
    variant = FixedPointVariant(kind="fixed_point", name="x", bits=4)
    context = Context(dataset=empty, budget=TrainConfig(), tune=lambda *_, **__: None)
    with pytest.raises(DataError, match="training images: expected at least one, got none"):
        quantize(build_model("resnet20", num_classes=10).eval(), variant, context)


def test_the_sources_schemes_have_no_ternary() -> None:
    with pytest.raises(ValueError, match="scheme best with ternary"):
        FixedPointVariant(kind="fixed_point", name="x", bits="ternary", scheme="symmetric")


def test_a_network_of_another_kind_of_convolution_is_left_in_float_and_named() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Conv1d(3, 3, 1)
            self.fc = nn.Linear(3, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.fc(self.flat(images.flatten(2)).mean(2))
            return logits

    made = by_reconstruction(Mixed().eval(), torch.randn(4, 3, 5, 5), bits=4, seed=0)
    assert made.float_layers == ("flat",)
    assert made.record(FixedPointVariant(kind="fixed_point", name="x")).layers == 1
