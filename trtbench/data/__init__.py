"""Datasets, their split, their preprocessing, batches of them, and the identity and likeness of images."""

from trtbench.data.batches import balanced, batches, spread, training_sample
from trtbench.data.duplicates import near_duplicates
from trtbench.data.load import load_dataset, read_dataset, save_dataset
from trtbench.data.preprocess import normalise, pixel_sha256

__all__ = [
    "balanced",
    "batches",
    "load_dataset",
    "near_duplicates",
    "normalise",
    "pixel_sha256",
    "read_dataset",
    "save_dataset",
    "spread",
    "training_sample",
]
