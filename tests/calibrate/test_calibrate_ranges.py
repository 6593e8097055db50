from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from trtbench.calibrate import ranges
from trtbench.calibrate.ranges import (
    ALL_ZERO_AMAX,
    BINS,
    Histogram,
    collect_histograms,
    guarded_entropy,
    observe,
    thresholds,
)
from trtbench.errors import CalibrationError, ConfigError
from trtbench.graph.reference import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbench.suite import Method

Array = NDArray[np.float32]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")
every_method = pytest.mark.parametrize("method", METHODS)


def _sample(name: str) -> Array:
    rng = np.random.default_rng(0)
    samples = {
        "normal": rng.normal(size=50_000),
        "laplace": 3 * rng.laplace(size=50_000),
        "relu": np.maximum(rng.normal(size=50_000), 0),
        "heavy": rng.standard_t(3, size=50_000),
        "uniform": rng.uniform(-1, 1, size=1_000),
    }
    return samples[name].astype(np.float32)


every_sample = pytest.mark.parametrize("name", ["normal", "laplace", "relu", "heavy", "uniform"])


def _amax(values: Any, method: Method, percentile: float = 99.99) -> float:
    return thresholds(collect_histograms([{"x": values}]), method=method, percentile=percentile)["x"]


def _counts(values: Array) -> NDArray[np.float64]:
    histogram = observe(Histogram(), values, tensor="x")
    return np.asarray(histogram.counts[: histogram.used], np.float64)


# --- hand-worked values


def test_minmax_is_the_largest_magnitude_of_all_batches() -> None:
    batches = [{"x": np.array([0.5, -3], np.float32)}, {"x": np.array([2.5, 0], np.float32)}]
    assert thresholds(collect_histograms(batches), method="minmax") == {"x": 3.0}


@pytest.mark.parametrize(("percentile", "expected"), [(50, 0.5), (99, 0.99), (100, 1.0)])
def test_a_percentile_of_even_steps_is_that_step(percentile: float, expected: float) -> None:
    steps = np.arange(1, 101, dtype=np.float32) / 100  # the range is [0, 2), a bin 1/1024 wide
    assert _amax(steps, "percentile", percentile) == pytest.approx(expected, abs=1 / 1024)
    assert _amax(steps, "percentile", percentile) >= np.float32(expected)


def test_a_percentile_counts_exact_zeros() -> None:
    values = np.array([0] * 90 + [1] * 9 + [8], np.float32)
    assert _amax(values, "percentile", 99) == pytest.approx(1, abs=16 / BINS)
    assert _amax(values, "percentile", 100) == 8


def test_entropy_clips_a_lone_outlier_and_mse_does_not_where_it_is_worth_it() -> None:
    bulk = np.tile(np.linspace(-1, 1, 2_001, dtype=np.float32), 50)
    values = np.append(bulk, np.float32(8))
    assert 0.9 < _amax(values, "entropy") < 2
    assert 0.9 < _amax(values, "mse") < 8
    assert _amax(values, "minmax") == 8


@every_method
def test_exact_zeros_leave_the_threshold_where_it_is(method: Method) -> None:
    values = _sample("normal")
    diluted = np.concatenate([values, np.zeros_like(values)])
    tolerance = 0.05 if method == "percentile" else 0.0  # the only method that counts them
    assert _amax(diluted, method) == pytest.approx(_amax(values, method), rel=tolerance)


@every_method
def test_a_constant_tensor_keeps_its_magnitude(method: Method) -> None:
    assert _amax(np.full((2, 3), -0.3, np.float32), method) == np.float32(0.3)


@every_method
def test_an_all_zero_tensor_has_a_positive_threshold(method: Method) -> None:
    zeros = {"x": np.zeros((2, 3), np.float32)}
    assert thresholds(collect_histograms([zeros, zeros]), method=method) == {"x": ALL_ZERO_AMAX}


@every_method
def test_a_tensor_that_wakes_up_late_is_calibrated_on_what_it_shows(method: Method) -> None:
    quiet, awake = np.zeros(4, np.float32), np.full(4, 5, np.float32)
    for batches in ([quiet, awake], [awake, quiet]):
        assert thresholds(collect_histograms([{"x": batch} for batch in batches]), method=method) == {"x": 5.0}


def test_the_moving_average_starts_at_the_first_batch_and_moves_by_a_hundredth() -> None:
    batches = [{"x": np.array([-value, 0], np.float32)} for value in (4, 8, 2)]
    assert thresholds(collect_histograms(batches), method="moving-average") == {
        "x": pytest.approx(4 + 0.04 + 0.01 * (2 - 4.04))
    }


def test_a_moving_average_of_silence_is_no_threshold_of_zero() -> None:
    assert thresholds(collect_histograms([{"x": np.zeros(3, np.float32)}] * 2), method="moving-average") == {
        "x": ALL_ZERO_AMAX
    }


@pytest.mark.parametrize("power", [-120, 0, 110])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_magnitude_falls_into_its_bin_whatever_its_size(power: int, dtype: type) -> None:
    values: NDArray[Any] = np.ldexp(np.arange(-BINS + 1, BINS, dtype=dtype), power).astype(dtype)
    found = observe(Histogram(), values, tensor="x")
    assert (found.zeros, found.counts[0], set(found.counts[1:].tolist())) == (1, 0, {2})


# --- independent implementations


def _migacz_loop(counts: NDArray[np.float64]) -> int:
    """Write out the pseudocode of Migacz (GTC 2017) candidate by candidate, with SciPy's divergence."""
    divergences = []
    for size in range(128, len(counts) + 1):
        kept = counts[:size]
        reference = kept.copy()
        reference[-1] += counts[size:].sum()
        edges = [math.ceil(level * size / 128) for level in range(129)]
        mass, filled = (np.add.reduceat(part, edges[:-1]) for part in (kept, (kept > 0).astype(np.float64)))
        expanded = np.repeat(mass / np.maximum(filled, 1), np.diff(edges)) * (kept > 0)
        divergences.append(scipy.stats.entropy(reference, expanded) if expanded.any() else math.inf)
    return 128 + len(divergences) - 1 - int(np.argmin(divergences[::-1]))


@pytest.mark.parametrize(
    "name", ["normal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("relu", "heavy"))]
)
def test_the_entropy_search_is_the_published_loop(name: str) -> None:
    values = _sample(name)
    histogram = observe(Histogram(), values, tensor="x")
    expected = _migacz_loop(_counts(values)) * histogram.bin_width
    assert _amax(values, "entropy") == min(expected, histogram.largest)


def _mse_loop(counts: NDArray[np.float64]) -> int:
    centres = np.arange(len(counts)) + 0.5
    errors = []
    for size in range(128, len(counts) + 1):
        step = size / 127
        rounded = np.minimum(np.rint(centres / step), 127) * step
        errors.append((counts * (centres - rounded) ** 2).sum())
    return 128 + len(errors) - 1 - int(np.argmin(errors[::-1]))


@every_sample
def test_the_mse_search_is_the_plain_loop(name: str) -> None:
    values = _sample(name)
    histogram = observe(Histogram(), values, tensor="x")
    assert _amax(values, "mse") == min(_mse_loop(_counts(values)) * histogram.bin_width, histogram.largest)


@every_sample
@pytest.mark.parametrize("percentile", [90, 99, 99.9])
def test_a_percentile_is_that_of_the_sorted_magnitudes_within_a_bin(name: str, percentile: float) -> None:
    values = _sample(name)
    # Exact, where np.percentile asks for one value too many: 99.9 % of 50,000 is no binary fraction.
    covered = math.ceil(Fraction(str(percentile)) / 100 * len(values))
    expected = np.sort(np.abs(values))[covered - 1]
    bin_width = observe(Histogram(), values, tensor="x").bin_width
    assert expected <= _amax(values, "percentile", percentile) <= expected + bin_width * 1.0001


@pytest.mark.parametrize("name", ["halfnorm", "expon", "uniform"])
def test_a_percentile_is_the_quantile_of_the_distribution(name: str) -> None:
    distribution = getattr(scipy.stats, name)
    values = distribution.ppf((np.arange(100_000) + 0.5) / 100_000).astype(np.float32)
    width = observe(Histogram(), values, tensor="x").bin_width
    assert _amax(values, "percentile", 99.0) == pytest.approx(distribution.ppf(0.99), abs=1.01 * width)


@pytest.mark.parametrize("name", ["halfnorm", "expon"])
def test_the_mse_threshold_is_where_the_expected_error_is_least(name: str) -> None:
    distribution = getattr(scipy.stats, name)
    values = distribution.ppf((np.arange(100_000) + 0.5) / 100_000)

    def error(amax: float) -> float:
        step = amax / 127
        return float(np.square(values - np.minimum(np.rint(values / step), 127) * step).mean())

    best = scipy.optimize.minimize_scalar(error, bounds=(values.max() / 4, values.max()), method="bounded").fun
    assert error(_amax(values.astype(np.float32), "mse")) <= 1.02 * best


def _onnxruntime_threshold(values: Array, method: str, **options: Any) -> float:
    onnxruntime()
    from onnxruntime.quantization.calibrate import HistogramCollector

    settings: dict[str, Any] = {"num_bins": 4096, "num_quantized_bins": 255, "percentile": 99.9} | options
    collector = HistogramCollector(method=method, symmetric=True, **settings, scenario="same")
    collector.collect({"x": [values]})
    return float(np.ravel(collector.compute_collection_result()["x"][1])[0])


@pytest.mark.parametrize("name", ["normal", "laplace", "heavy", "uniform"])
def test_percentile_agrees_with_onnxruntime_within_two_bins(name: str) -> None:
    values = _sample(name)
    # Its bins are 2 max / 4096 wide, ours at most max / 1024.
    tolerance = 2 * float(np.abs(values).max()) / 1024
    theirs = _onnxruntime_threshold(values, "percentile")
    assert _amax(values, "percentile", 99.9) == pytest.approx(theirs, abs=tolerance)


@pytest.mark.parametrize(
    "name", ["normal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("laplace", "heavy"))]
)
def test_entropy_agrees_with_onnxruntime_within_a_quarter(name: str) -> None:
    # Its levels take whole bins and leave the rest to the last one, and it smooths; both move its minimum.
    values = _sample(name)
    theirs = _onnxruntime_threshold(values, "entropy", num_bins=2049)
    assert _amax(values, "entropy") == pytest.approx(theirs, rel=0.25)


@pytest.mark.parametrize(("method", "options"), [("minmax", {}), ("moving-average", {"moving_average": True})])
def test_largest_magnitudes_agree_with_onnxruntime(tmp_path: Path, method: Method, options: dict[str, bool]) -> None:
    onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    signature = "n (float[batch, 4] input) => (float[batch, 4] out)"
    text = f'<ir_version: 10, opset_import: ["" : 20]> {signature} {{ out = Mul(input, input) }}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "n.onnx")
    # It averages minimum and maximum, each for itself: the same thing as magnitudes only where none is below 0.
    batches = [np.abs(batch).reshape(-1, 4) for batch in np.split(_sample("normal"), 5)]

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self, batches: list[Array]) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    calibrater = MinMaxCalibrater(
        tmp_path / "n.onnx", augmented_model_path=str(tmp_path / "m.onnx"), symmetric=True, **options
    )
    calibrater.augment_graph()
    calibrater.create_inference_session()
    for batch in batches:  # it averages over its calls
        calibrater.collect_data(Reader([batch]))
    theirs = {name: float(found.range_value[1][0]) for name, found in calibrater.compute_data().data.items()}
    ours = thresholds(collect_histograms([{"input": batch, "out": batch * batch} for batch in batches]), method=method)
    assert ours == pytest.approx(theirs)


# --- properties

_FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=2, max_side=40),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


@settings(max_examples=60, deadline=None)
@given(values=_FLOATS, method=st.sampled_from(METHODS))
def test_a_threshold_is_positive_and_at_most_the_largest_magnitude(values: Array, method: Method) -> None:
    largest = float(np.abs(values).max())
    assert 0 < _amax(values, method) <= (largest or ALL_ZERO_AMAX)


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(_FLOATS, min_size=1, max_size=6), method=st.sampled_from(METHODS), data=st.data())
def test_neither_order_nor_batching_of_the_stream_matters(
    batches: list[Array], method: Method, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(batches))
    whole = np.concatenate([batch.ravel() for batch in batches])
    expected = _amax(whole, method)
    assert thresholds(collect_histograms([{"x": batch} for batch in batches]), method=method) == {"x": expected}
    assert thresholds(collect_histograms([{"x": batch} for batch in shuffled]), method=method) == {"x": expected}


@settings(max_examples=60, deadline=None)
@given(values=_FLOATS.filter(np.any), method=st.sampled_from(METHODS), power=st.integers(-20, 20))
def test_scaling_by_a_power_of_two_scales_the_threshold(values: Array, method: Method, power: int) -> None:
    scaled = values.astype(np.float64) * 2.0**power
    assert _amax(scaled, method) == _amax(values, method) * 2.0**power


@every_method
@pytest.mark.parametrize("factor", [0.1, 1.7, 300])
def test_scaling_by_any_factor_scales_the_threshold_nearly(method: Method, factor: float) -> None:
    # The bins lie otherwise then, and the least divergence is flat.
    values = _sample("normal")
    assert _amax(values * np.float32(factor), method) == pytest.approx(_amax(values, method) * factor, rel=0.1)


@every_method
def test_signs_do_not_matter(method: Method) -> None:
    values = _sample("laplace")
    assert _amax(values, method) == _amax(np.abs(values), method)


def test_half_precision_activations_count_like_single_ones() -> None:
    values = _sample("normal").astype(np.float16)
    assert _amax(values, "entropy") == _amax(values.astype(np.float32), "entropy")


# --- streaming


def test_a_histogram_keeps_its_size_whatever_it_sees() -> None:
    histogram = Histogram()
    for value in (1e-3, 1.0, 1e3, 1e-30, 1e30):
        histogram = observe(histogram, np.full(10, value, np.float32), tensor="x")
        assert (histogram.counts.shape, int(histogram.counts.sum())) == (
            (BINS,),
            10 * [1e-3, 1.0, 1e3, 1e-30, 1e30].index(value) + 10,
        )
    assert BINS // 2 < histogram.used <= BINS


def test_the_stream_is_read_once_and_nothing_of_it_is_kept() -> None:
    import gc
    import weakref

    class Batch(np.ndarray[Any, Any]):
        """An array that can be watched."""

    alive: list[weakref.ref[Batch]] = []

    def stream() -> Iterator[dict[str, Batch]]:
        for seed in range(5):
            batch = np.random.default_rng(seed).normal(size=100).view(Batch)
            alive.append(weakref.ref(batch))
            yield {"x": batch}
            del batch
            gc.collect(0)  # a cycle that held it would be young
            assert sum(reference() is not None for reference in alive) <= 1

    assert thresholds(collect_histograms(stream()), method="entropy")["x"] > 0


def test_tensors_keep_their_order() -> None:
    batch = {name: np.ones(3, np.float32) for name in ("late", "early", "a")}
    assert list(thresholds(collect_histograms([batch, batch]), method="mse")) == ["late", "early", "a"]


# --- refusals


def test_no_batch_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="expected at least one batch, got none"):
        thresholds(collect_histograms([]), method="entropy")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tensor_with_nan_or_infinity_is_named(bad: float) -> None:
    good = np.ones(3, np.float32)
    with pytest.raises(CalibrationError, match=r"tensor 'layer2\.out': expected finite values, got NaN or infinity"):
        thresholds(
            collect_histograms([{"layer2.out": good}, {"layer2.out": np.array([1, bad, 0], np.float32)}]),
            method="minmax",
        )


def test_an_empty_tensor_is_named() -> None:
    with pytest.raises(CalibrationError, match="tensor 'x': expected finite values, got no values"):
        thresholds(collect_histograms([{"x": np.zeros((0, 3), np.float32)}]), method="minmax")


def test_a_batch_with_other_tensors_is_an_error() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(
        CalibrationError, match="calibration batch 1: expected the tensors of the first batch: a, got b"
    ):
        thresholds(collect_histograms([{"a": one}, {"b": one}]), method="minmax")


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"calibration method: expected minmax \| moving-average \| percentile \| entropy \| mse"
    ):
        thresholds(collect_histograms([{"x": np.ones(1)}]), method="max")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("percentile", [0, 100.1, float("nan")])
def test_a_percentile_outside_its_range_is_an_error(percentile: float) -> None:
    with pytest.raises(ConfigError, match="percentile: expected above 0 and at most 100"):
        thresholds(collect_histograms([{"x": np.ones(1)}]), method="percentile", percentile=percentile)


def test_the_module_needs_neither_torch_nor_a_runtime() -> None:
    import subprocess
    import sys

    code = "import sys, trtbench.calibrate.ranges; print({'torch', 'onnxruntime', 'cupy', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- entropy that is kept from collapsing


def _with_a_tail() -> Histogram:
    """Return many values below 1 and a few up to 8, which entropy clips away."""
    tail = np.random.default_rng(0).uniform(4, 8, 100)
    values = np.concatenate([np.tile(np.linspace(-1, 1, 2_001), 50), tail])
    return observe(Histogram(), values.astype(np.float32), tensor="x")


def test_entropy_gives_way_to_mse_where_it_clips_what_matters() -> None:
    histograms = {"x": _with_a_tail(), "y": observe(Histogram(), _sample("normal"), tensor="y")}
    entropy, mse = (thresholds(histograms, method=method) for method in ("entropy", "mse"))

    found, given_way = guarded_entropy(histograms)

    assert entropy["x"] < 2
    assert mse["x"] > 7
    assert found == {"x": mse["x"], "y": entropy["y"]}
    assert given_way == ("x",)


@pytest.mark.parametrize("name", ["relu", "normal", "laplace", "uniform"])
def test_entropy_stays_within_three_decibels_on_benign_values(name: str) -> None:
    values = _sample(name)
    histograms = {"x": observe(Histogram(), values, tensor="x")}

    assert guarded_entropy(histograms) == (thresholds(histograms, method="entropy"), ())


def test_a_tensor_of_zeros_has_no_error_to_compare() -> None:
    zeros = {"x": observe(Histogram(), np.zeros(4, np.float32), tensor="x")}

    assert guarded_entropy(zeros) == ({"x": ALL_ZERO_AMAX}, ())


def test_the_squared_error_is_that_of_rounding_and_clipping_each_centre() -> None:
    histogram = _with_a_tail()
    counts = np.asarray(histogram.counts[: histogram.used], np.float64)
    centres = np.arange(histogram.used) + 0.5

    errors = ranges._squared_errors(histogram)

    for bins in (200, 777, histogram.used):
        step = bins / 127
        rounded = np.clip(np.floor(centres / step + 0.5), 0, 127) * step
        assert errors[bins - 128] == pytest.approx((counts * (rounded - centres) ** 2).sum(), rel=1e-6)


# --- batches of which every few values are counted


def _after(batches: int) -> Histogram:
    """Return what is known after so many batches of one small value."""
    histogram = Histogram()
    for _ in range(batches):
        histogram = observe(histogram, np.ones(1, np.float32), tensor="x")
    return histogram


def test_of_a_large_late_batch_a_part_stands_for_all_and_meets_every_column() -> None:
    columns = np.broadcast_to(np.arange(1, 257, dtype=np.float32) / 256, (512, 256)).copy()
    columns[100, 7] = -1000

    late, early = (observe(_after(batches), columns, tensor="x") for batches in (8, 7))

    assert early.counts.sum() == columns.size + 7
    assert late.counts.sum() == pytest.approx(columns.size, rel=0.001)
    assert late.largest == early.largest == 1000
    fine = observe(_after(8), columns.clip(0, 1), tensor="x")
    assert np.count_nonzero(fine.counts) == 256


@pytest.mark.parametrize("method", ["entropy", "mse", "percentile"])
def test_what_a_part_tells_is_what_all_tell(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = np.maximum(np.random.default_rng(0).laplace(size=(16, 8, 16, 16, 16)), 0).astype(np.float32)
    part = thresholds(collect_histograms([{"x": batch} for batch in batches]), method=method)["x"]
    monkeypatch.setattr(ranges, "_WHOLE_BATCHES", len(batches))

    whole = thresholds(collect_histograms([{"x": batch} for batch in batches]), method=method)["x"]

    assert part == pytest.approx(whole, rel=0.06)


def test_each_late_batch_is_sampled_elsewhere() -> None:
    batch = np.zeros(2**17, np.float32)
    batch[8] = 1  # the ninth batch alone starts there

    histogram = _after(8)
    for _ in range(3):
        histogram = observe(histogram, batch, tensor="x")

    assert histogram.counts.sum() == 8 + 17
    assert histogram.zeros == pytest.approx(3 * 2**17, rel=0.001)
