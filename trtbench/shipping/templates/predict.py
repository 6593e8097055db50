"""Say what is on images, with the engine beside this file: `python predict.py IMAGE... [--top 5] [--json]`.

It needs NumPy, Pillow and the runtime that bundle.json names, and not trtbench. From Python:
`Classifier().logits(pixels)`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
FRAMING = ("size", "crop_ratio", "interpolation", "antialias", "exif_rotation")


def read_bundle(folder: Path) -> dict[str, Any]:
    """Return bundle.json, once it and the files it lists are found to be those that were shipped."""
    bundle: dict[str, Any] = json.loads((folder / "bundle.json").read_bytes())
    said = bundle.pop("sha256", "")
    text = json.dumps(bundle, sort_keys=True, separators=(",", ":"))
    found = {name: _sha256(folder / name) for name in bundle.get("files", {})}
    changed = [name for name, digest in bundle.get("files", {}).items() if found[name] != digest]
    if hashlib.sha256(text.encode()).hexdigest() != said:
        changed.insert(0, "bundle.json")
    if changed:
        sys.stderr.write(f"error: {folder}: not as it was shipped: {', '.join(changed)}; ship it again\n")
        raise SystemExit(2)
    return bundle


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


class Classifier:
    """The engine of a bundle; calls take turns."""

    def __init__(self, folder: Path = HERE) -> None:
        self.bundle = read_bundle(folder)
        sys.path.insert(0, str(folder))
        self._engine = importlib.import_module("runtime").Engine(folder, self.bundle)
        self._pixels = importlib.import_module("pixels")

    def decode(self, image: Any) -> np.ndarray:
        """Return an image, or the file of one, as uint8 (3, H, W) RGB of the network's size."""
        fit = self.bundle["preprocessing"]
        with Image.open(image) as opened:
            try:
                found = self._pixels.framed(opened, **{name: fit[name] for name in FRAMING})
            except ValueError as error:
                raise SystemExit(f"error: {image}: {error}") from error
        return np.asarray(found).transpose(2, 0, 1)

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """Return the network's input of uint8 pixels (N, C, H, W)."""
        fit = self.bundle["preprocessing"]
        found: np.ndarray = self._pixels.normalised(pixels, fit["mean"], fit["std"])
        return found

    def logits(self, pixels: np.ndarray, batch: int | None = None) -> np.ndarray:
        """Return float32 logits (N, classes) of uint8 pixels (N, C, H, W).

        The engine runs at `batch`, by default as it was chosen; a last batch that is not full is padded.
        """
        size = batch or self.bundle["batch_size"]
        found = []
        for start in range(0, len(pixels), size):
            part = self.inputs(pixels[start : start + size])
            padded = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)), mode="edge")
            found.append(self._engine.run(padded)[: len(part)])
        return np.concatenate(found) if found else np.empty((0, len(self.bundle["classes"])), np.float32)


def main() -> None:
    """Print what is on each image, or write the logits of an array of pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("images", nargs="*", help="image files")
    parser.add_argument("--top", type=int, default=1, help="classes to name, the likeliest first")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--batch-size", type=int, help="images the engine takes at once")
    parser.add_argument("--pixels", help="instead of images: a .npy of uint8 (N, C, H, W)")
    parser.add_argument("--logits", help="with --pixels: the .npy to write")
    given = parser.parse_args()
    classifier = Classifier()
    bundle = classifier.bundle
    if given.pixels:
        np.save(given.logits, classifier.logits(np.load(given.pixels, mmap_mode="r"), given.batch_size))
        return
    for name in given.images:
        (logits,) = classifier.logits(classifier.decode(name)[None], given.batch_size)
        shares = np.exp(logits.astype(np.float64) - logits.max())
        shares /= shares.sum()
        best = [int(one) for one in np.argsort(-logits, kind="stable")[: given.top]]
        top = [{"class": bundle["classes"][one], "probability": float(shares[one])} for one in best]
        words = ", ".join(f"{one['class']} {one['probability']:.3f}" for one in top)
        sys.stdout.write(json.dumps({"image": name, "top": top}) + "\n" if given.json else f"{name}: {words}\n")


if __name__ == "__main__":
    main()
