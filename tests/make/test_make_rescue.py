from __future__ import annotations

import pytest

from trtbench.make.rescue import LOW_SNR_DB, is_in_doubt
from trtbench.rows import CalibrationRecord


def _record(snr_db: float | None, agreement: float) -> CalibrationRecord:
    return CalibrationRecord(method="entropy", snr_db=snr_db, agreement=agreement, images=100)


@pytest.mark.parametrize(
    ("snr_db", "agreement", "limit", "is_rescued"),
    [
        (LOW_SNR_DB - 0.1, 1.0, 2.0, True),
        (LOW_SNR_DB + 0.1, 1.0, 2.0, False),
        (None, 1.0, 0.0, False),
        (40.0, 0.95, 2.0, False),  # five of a hundred: two are accepted, and chance adds three more
        (40.0, 0.94, 2.0, True),
        (40.0, 0.99, 0.0, True),
    ],
)
def test_doubt_is_noise_like_that_of_lossy_graphs_or_more_changed_classes_than_chance_explains(
    snr_db: float | None,
    agreement: float,
    limit: float,
    is_rescued: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    assert is_in_doubt(_record(snr_db, agreement), max_drop_pp=limit) == is_rescued


def test_a_graph_that_is_not_quantized_is_in_no_doubt() -> None:
    assert not is_in_doubt(None, max_drop_pp=1.0)
