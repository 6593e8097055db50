"""The public fake is an engine like the others, told by a script."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.engines.base import BuildRequest
from trtbench.engines.fake import FAKE
from trtbench.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from trtbench.engines.base import Engine
    from trtbench.engines.sidecar import Sidecar


def _open(folder: Path, made: Sidecar, **script: Any) -> Engine:
    (folder / "script.json").write_text(json.dumps(script))
    engine = folder / "engine.json"
    FAKE.build(BuildRequest(source=folder / "script.json", engine=engine, precision="fp32", num_classes=4))
    return FAKE.open(engine, made, {"threads": 1})


def test_logits_are_a_linear_map_of_the_pixels_and_always_the_same(
    tmp_path: Path, sidecar: Callable[..., Sidecar], images: NDArray[np.float32]
) -> None:
    session = _open(tmp_path, sidecar()).session(len(images))
    session.copy_in(images)
    session.enqueue()
    first = session.copy_out()
    session.copy_in(2 * images)
    session.enqueue()
    session.synchronize()

    np.testing.assert_allclose(session.copy_out(), 2 * first, rtol=1e-5)
    assert first.shape == (len(images), 4)
    session.close()


def test_durations_follow_the_script(tmp_path: Path, sidecar: Callable[..., Sidecar]) -> None:
    session = _open(tmp_path, sidecar(), ns_per_image=1000, jitter=0).session(2)

    assert session.time(3, launches_per_sample=1, scope="device").tolist() == [2000] * 3
    assert session.time(1, launches_per_sample=5, scope="host-to-host").tolist() == [11_000]


def test_a_script_without_memory_has_none(tmp_path: Path, sidecar: Callable[..., Sidecar]) -> None:
    with pytest.raises(OutOfMemoryError):
        _open(tmp_path, sidecar(), oom=True)
