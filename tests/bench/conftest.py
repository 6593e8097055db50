"""Engine files of the public fake, with sidecars, and images to score them on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.bench.records import EngineFile, Images
from trtbench.engines.base import BuildRequest
from trtbench.engines.fake import FAKE
from trtbench.engines.sidecar import write_sidecar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from trtbench.engines.sidecar import Sidecar

CLASSES, SIZE, TOTAL = 4, 8, 10


@pytest.fixture
def images(tmp_path: Path) -> Images:
    random = np.random.default_rng(0)
    path = tmp_path / "test.npy"
    np.save(path, random.integers(0, 256, (TOTAL, 3, SIZE, SIZE), dtype=np.uint8))
    return Images(path=path, labels=random.integers(0, CLASSES, TOTAL))


@pytest.fixture
def fake_engine(tmp_path: Path, sidecar: Callable[..., Sidecar]) -> Callable[..., EngineFile]:
    """Build a fake engine; keywords go into its script."""

    def make(name: str, **script: Any) -> EngineFile:
        source = tmp_path / f"{name}.script"
        source.write_text(json.dumps(script))
        path = tmp_path / f"{name}.json"
        FAKE.build(BuildRequest(source=source, engine=path, precision="fp32", num_classes=CLASSES))
        made = sidecar(
            path,
            variant=name,
            backend="fake",
            device="simulated",
            weight_bytes=0,
            num_classes=CLASSES,
        )
        write_sidecar(path, made)
        return EngineFile(name=name, backend="fake", path=path)

    return make
