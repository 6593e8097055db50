"""The committed manifests of the shipped suites are of the data they name, and leak nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtbench.calibrate.leaks import check_leak
from trtbench.calibrate.manifest import load_manifest, make_manifest, verify_manifest
from trtbench.data import load_dataset
from trtbench.suite import load_suite, shipped_suites

_CALIB = Path(__file__).parent.parent.parent / "calib"


@pytest.mark.parametrize("name", sorted(path.stem for path in _CALIB.glob("*.json")))
def test_a_committed_manifest_is_the_one_its_data_gives(name: str) -> None:
    suite = load_suite(name)
    dataset = load_dataset(suite.data)
    found = load_manifest(_CALIB / f"{name}.json")

    verify_manifest(found, dataset)
    check_leak(dataset, found.indices)
    config = suite.calibration
    assert found == make_manifest(dataset, per_class=config.per_class, total=config.total, seed=config.seed)


def test_every_committed_manifest_belongs_to_a_shipped_suite() -> None:
    assert {"quickstart"} <= {path.stem for path in _CALIB.glob("*.json")} <= set(shipped_suites())
