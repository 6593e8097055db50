"""The proof of a bundle: a fresh process scores the test split with nothing but what the bundle holds."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtbench.bench.accuracy import fidelity
from trtbench.calibrate.exclusion import noise_share
from trtbench.errors import GateError
from trtbench.report.units import decibels
from trtbench.shipping.bundle import Proof

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from trtbench.records import Output, Split
    from trtbench.rows import FidelityRecord, OutputFidelity

MARGIN = 1e-3  # of the range of logits, or of an output: what another order of sums moves on a GPU, and no CPU does
_CURE = "build and run the suite again: this engine, or these images, are not those of the run"


def prove(
    folder: Path, test: Split, *, batch: int, correct: int, noted: Sequence[int]
) -> tuple[Proof, NDArray[np.float32]]:
    """Score the test split in a fresh process that knows the bundle alone; return the proof and the logits.

    Args:
        folder: of the bundle.
        test: the images and their labels.
        batch: at which the engine was measured.
        correct: what the run counted.
        noted: the first class of each image as the run noted it; () where it noted none.

    Raises:
        GateError: the process fails, the count is another, or an image flips that is no near-tie.
    """
    logits = scored(folder, test.images, batch=batch)
    first = logits.argmax(axis=1)
    found = int((first == test.labels).sum())
    flipped = np.flatnonzero(first != np.asarray(noted)) if noted else np.empty(0, np.int64)
    far = [int(one) for one in flipped if _lead(logits[one]) > MARGIN]
    if found != correct or far:
        got = f"{found}" + (f", and image {far[0]} flips beyond {MARGIN:g} of its logits" if far else "")
        expected = f"{correct} of {len(test)} images right, as the run counted"
        raise GateError(f"bundle {folder.name}", expected=expected, got=got, cure=_CURE)
    flips = len(flipped) if noted else None
    return Proof(correct=found, total=len(test), flips=flips, margin=MARGIN), logits


def prove_outputs(
    folder: Path,
    images: NDArray[np.uint8],
    *,
    batch: int,
    reference: NDArray[np.float32],
    noted: FidelityRecord,
    outputs: Sequence[Output],
) -> tuple[Proof, NDArray[np.float32]]:
    """Compute the outputs of all images likewise, and hold them to the float network's as the run did.

    Args:
        folder: of the bundle.
        images: those of the run.
        batch: at which the engine was measured.
        reference: the float network's outputs of these images.
        noted: what the run found.
        outputs: which there are.

    Raises:
        GateError: the process fails, or an output's noise is another, by more than MARGIN of the output.
        EngineError: the outputs are not finite, or not these.
    """
    found = scored(folder, images, batch=batch)
    now = fidelity(found, reference, outputs)
    before = {one.name: one for one in noted.outputs}
    for one in now.outputs:
        for what, share, wanted in _noises(one, before.get(one.name)):
            if not abs(share - wanted) <= MARGIN:
                expected = f"noise of {wanted:.3g} of {what}, as the run found"
                raise GateError(f"bundle {folder.name}", expected=expected, got=f"{share:.3g}", cure=_CURE)
    return Proof(fidelity=now, margin=MARGIN), found


def proof_words(proof: Proof) -> str:
    """Say what a proof found."""
    if proof.fidelity is not None:
        return f"fidelity {decibels(proof.fidelity.snr_db)} on {proof.fidelity.images} images"
    return f"{proof.correct} of {proof.total} right"


def _noises(now: OutputFidelity, before: OutputFidelity | None) -> Iterator[tuple[str, float, float]]:
    """Yield what is compared, and the root of its noise's power as a share of the signal's, now and in the run.

    The worst channels of the one need not be those of the other: where others are worse now, these are ruined.
    """
    yield f"output {now.name}", _share(now.snr_db), math.inf if before is None else _share(before.snr_db)
    if before is not None and now.channels and (before.channels or before.snr_db is None):  # older runs knew none
        what = f"channels {now.channels} of {now.name}"
        yield what, _share(now.channels_snr_db), _share(before.channels_snr_db)


def _share(snr_db: float | None) -> float:
    return float(noise_share(snr_db) ** 0.5)


def scored(folder: Path, images: NDArray[np.uint8], *, batch: int) -> NDArray[np.float32]:
    """Return the logits that a bundle's own predict.py gives of uint8 images (N, C, H, W), in a process of its own.

    Of a network that is no classifier they are all its outputs, flattened, side by side.

    Raises:
        GateError: it fails; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="trtbench-") as scratch:
        pixels, logits = Path(scratch) / "pixels.npy", Path(scratch) / "logits.npy"
        np.save(pixels, images)
        # -E and -s: neither PYTHONPATH nor the user's own packages are there; -B: no bytecode goes into the bundle.
        command = [sys.executable, "-E", "-s", "-B", str(folder.absolute() / "predict.py")]
        command += ["--pixels", str(pixels), "--logits", str(logits), "--batch-size", str(batch)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            words = run.stderr.strip().splitlines()[-1:] or ["no last words"]
            got = f"exit code {run.returncode} ({words[0]})"
            raise GateError(f"bundle {folder.name}: predict.py", expected="logits", got=got, cure=_CURE)
        found: NDArray[np.float32] = np.load(logits)
        return found


def _lead(logits: NDArray[np.float32]) -> float:
    """Return by how much the first class leads, as a share of the range of the logits."""
    second, first = np.sort(logits)[-2:]
    return float((first - second) / max(float(first - logits.min()), np.finfo(np.float32).tiny))
