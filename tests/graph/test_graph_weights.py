"""A weight's scales and codes, against plain searches and the runtime's own rounding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import numpy_helper

from trtbench.graph.reference import run_reference
from trtbench.graph.view import as_rows, rounded, weight_scales

Array = NDArray[np.float32]
_WEIGHTS = hnp.arrays(np.float32, (3, 20), elements=st.floats(-10, 10, width=32, allow_subnormal=False))


def _error(rows: Array, scales: Array) -> Array:
    error: Array = np.square(rows - rounded(rows, scales)).sum(axis=1)
    return error


@given(weight=_WEIGHTS)
def test_the_clip_of_least_error_is_never_worse_than_the_largest_magnitude(weight: Array) -> None:
    largest, best = (weight_scales(weight, axis=0, clip=clip) for clip in ("absmax", "mse"))
    assert (_error(weight, best) <= _error(weight, largest) * (1 + 1e-6)).all()
    assert (best >= largest * 0.499).all()
    assert (best <= largest).all()


def test_one_outlier_is_clipped_for_the_sake_of_many() -> None:
    channel = np.append(np.random.default_rng(0).uniform(-1, 1, 100_000), 1.5).astype(np.float32)
    scale = weight_scales(channel[None], axis=0, clip="mse")[0]
    assert 127 * scale < 1.3
    found = scipy.optimize.minimize_scalar(
        lambda clip: _error(channel[None], np.array([clip / 127], np.float32))[0], bounds=(0.9, 1.5), method="bounded"
    )
    assert _error(channel[None], np.array([scale]))[0] == pytest.approx(found.fun, rel=0.02)


@pytest.mark.parametrize("axis", [0, 1])
def test_each_slice_along_the_axis_has_its_own_scale(axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 5, 3, 3)).astype(np.float32)
    expected = [np.abs(part).max() / 127 for part in np.moveaxis(weight, axis, 0)]
    assert weight_scales(weight, axis=axis) == pytest.approx(expected)
    assert as_rows(weight, axis=axis).shape == (weight.shape[axis], weight.size // weight.shape[axis])


@given(weight=_WEIGHTS)
def test_rounding_is_that_of_the_runtimes_quantizer(weight: Array) -> None:
    scales = weight_scales(weight, axis=0, clip="mse")
    body = "q = QuantizeLinear<axis = 0>(w, s, z) out = DequantizeLinear<axis = 0>(q, s, z)"
    text = f'<ir_version: 10, opset_import: ["" : 20]> n (float[3, 20] w) => (float[3, 20] out) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, value in (("s", scales), ("z", np.zeros(3, np.int8))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    np.testing.assert_array_equal(run_reference(model, {"w": weight})["out"], rounded(weight, scales))
