"""One engine file, scored and timed without the suite that it was built for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtbench.bench.measure import measure_engines
from trtbench.bench.measured import EngineFile, Images
from trtbench.engines.sidecar import read_sidecar
from trtbench.errors import ConfigError
from trtbench.progress import Event, Listener, nobody
from trtbench.running.bench import row_of
from trtbench.store import storing
from trtbench.suite import BACKENDS, DataConfig, options

if TYPE_CHECKING:
    from trtbench.rows import Row
    from trtbench.suite import BenchConfig


def bench_engine(
    engine: Path, source: str, config: BenchConfig, *, out: Path, tell: Listener = nobody
) -> tuple[Row, ...]:
    """Score and time one engine file on a test split, with the preprocessing of its sidecar.

    Raises:
        ConfigError: there is no such file, or it tells other classes apart than the images have.
        SidecarError: its sidecar is absent or does not fit.
    """
    from trtbench.data import load_dataset

    if not engine.is_file():
        raise ConfigError(f"engine {engine}", expected="an engine file", got="nothing there", cure="`trtbench build`")
    sidecar = read_sidecar(engine)
    fit = sidecar.preprocessing
    dataset = load_dataset(options(DataConfig, source=source, size=fit.size, mean=fit.mean, std=fit.std))
    if dataset.num_classes != sidecar.num_classes:
        raise ConfigError(
            f"engine {engine}",
            expected=f"images of {sidecar.num_classes} classes",
            got=f"{dataset.num_classes} in {source}",
            cure="give the --data it was trained on",
        )
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "test.npy"
        with storing(images):
            np.save(images, dataset.test.images)
        name = f"{sidecar.variant} {sidecar.shown_precision} {sidecar.backend}"
        settings = {key: getattr(config, key) for key in BACKENDS[sidecar.backend].settings}
        measured = measure_engines(
            [EngineFile(name=name, backend=sidecar.backend, path=engine, settings=settings)],
            Images(path=images, labels=dataset.test.labels),
            config,
            folder=out,
            progress=lambda stage, item, share: tell(Event(stage=stage, item=item, state="progress", share=share)),
        )
    return tuple(row_of(one, sidecar) for one in measured)
