"""Say what is on images, with the engine beside this file: `python predict.py IMAGE... [--top 5] [--json]`.

It needs NumPy, Pillow and the runtime that bundle.json names, and not trtbench. From Python:
`Classifier().logits(pixels)`; of a network that is no classifier `Classifier().outputs(pixels)`, or --output FILE.npz.
One that takes no pictures is given a .npz with an array for each input, samples along the first axis.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import sys
import zipfile
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
        """Return the network's input of uint8 pixels (N, C, H, W); records of tensors are it as they are."""
        if pixels.dtype.names:
            return pixels
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
            padded = part[np.minimum(np.arange(size), len(part) - 1)]
            found.append(self._engine.run(padded)[: len(part)])
        numbers = len(self.bundle["classes"]) or sum(math.prod(one["shape"]) for one in self.bundle["outputs"])
        return np.concatenate(found) if found else np.empty((0, numbers), np.float32)

    def records(self, arrays: Any) -> np.ndarray:
        """Return the samples of an array for each input (N, ...), of a network that takes no pictures."""
        tensors = self.bundle["preprocessing"]["tensors"]
        kept = np.zeros(
            len(arrays[tensors[0]["name"]]), [(one["name"], one["dtype"], tuple(one["shape"])) for one in tensors]
        )
        for one in tensors:
            kept[one["name"]] = arrays[one["name"]]
        return kept

    def outputs(self, pixels: Any, batch: int | None = None) -> dict[str, np.ndarray]:
        """Return each output by its name, float32 (N, ...), of a network that is no classifier.

        One that takes no pictures gets an array for each input (N, ...) by its name.
        """
        said = self.bundle["outputs"]
        pixels = pixels if isinstance(pixels, np.ndarray) else self.records(pixels)
        ends = np.cumsum([math.prod(one["shape"]) for one in said])
        parts = np.split(self.logits(pixels, batch), ends[:-1], axis=1)
        return {one["name"]: part.reshape(-1, *one["shape"]) for one, part in zip(said, parts, strict=True)}


def main() -> None:
    """Print what is on each image, or write the logits of an array of pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("images", nargs="*", help="image files")
    parser.add_argument("--top", type=int, default=1, help="classes to name, the likeliest first")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--batch-size", type=int, help="images the engine takes at once")
    parser.add_argument("--pixels", help="instead of images: a .npy of uint8 (N, C, H, W)")
    parser.add_argument("--logits", help="with --pixels: the .npy to write")
    parser.add_argument("--output", help="of no classifier: the .npz to write every output to, by its name")
    given = parser.parse_args()
    classifier = Classifier()
    bundle = classifier.bundle
    if given.pixels:
        np.save(given.logits, classifier.logits(np.load(given.pixels, mmap_mode="r"), given.batch_size))
        return
    if "tensors" in bundle["preprocessing"]:
        for name in given.images:
            computed = classifier.outputs(np.load(name), given.batch_size)
            told = {key: summary(values) for key, values in computed.items()}
            sys.stdout.write((json.dumps({"outputs": told}) if given.json else summary_words(told)) + "\n")
            if given.output:
                write_arrays(given.output, computed)
        return
    if bundle["outputs"]:
        _tell_outputs(classifier, given)
        return
    for name in given.images:
        (logits,) = classifier.logits(classifier.decode(name)[None], given.batch_size)
        shares = np.exp(logits.astype(np.float64) - logits.max())
        shares /= shares.sum()
        best = [int(one) for one in np.argsort(-logits, kind="stable")[: given.top]]
        top = [{"class": bundle["classes"][one], "probability": float(shares[one])} for one in best]
        words = ", ".join(f"{one['class']} {one['probability']:.3f}" for one in top)
        sys.stdout.write(json.dumps({"image": name, "top": top}) + "\n" if given.json else f"{name}: {words}\n")


def _tell_outputs(network: Classifier, given: argparse.Namespace) -> None:
    """Print what each output of each image is like, and write them all where that is asked."""
    found = [network.outputs(network.decode(name)[None], given.batch_size) for name in given.images]
    for name, own in zip(given.images, found, strict=True):
        told = {key: summary(values[0]) for key, values in own.items()}
        words = f"{name}: {summary_words(told)}"
        sys.stdout.write((json.dumps({"image": name, "outputs": told}) if given.json else words) + "\n")
    if given.output and found:
        write_arrays(given.output, {key: np.concatenate([one[key] for one in found]) for key in found[0]})


def write_arrays(path: Any, arrays: dict[str, np.ndarray]) -> None:
    """Write a .npz of arrays of any names: those of outputs may be arguments of `np.savez`."""
    with zipfile.ZipFile(path, "w") as file:
        for name, values in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as one:
                np.lib.format.write_array(one, values, allow_pickle=False)


def summary(values: np.ndarray) -> dict[str, Any]:
    """Return the shape and the range of an output of one image."""
    return {"shape": list(values.shape), "min": float(values.min()), "max": float(values.max())}


def summary_words(told: dict[str, dict[str, Any]]) -> str:
    """Say the summaries of an image's outputs."""
    return "; ".join(f"{name} {one['shape']} {one['min']:.4g} to {one['max']:.4g}" for name, one in told.items())


if __name__ == "__main__":
    main()
