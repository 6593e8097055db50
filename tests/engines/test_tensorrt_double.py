"""The double of TensorRT and CUDA is held to the API of both majors and to the orders of the real libraries."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def test_each_major_is_imported_in_its_turn(tensorrt_double: ModuleType) -> None:
    assert tensorrt_double.__version__ in {"10.16.1.11", "11.4.0.106"}
    assert hasattr(tensorrt_double, "IInt8EntropyCalibrator2") == tensorrt_double.__version__.startswith("10.")
    assert tensorrt_double.IS_SIMULATED
    assert "doubles" in os.environ["PYTHONPATH"]
