"""Datasets, their split, their preprocessing, batches of them, and the identity and likeness of images."""

from __future__ import annotations

from trtbench.data.batches import balanced as balanced
from trtbench.data.batches import batches as batches
from trtbench.data.batches import spread as spread
from trtbench.data.batches import training_sample as training_sample
from trtbench.data.duplicates import near_duplicates as near_duplicates
from trtbench.data.load import load_dataset as load_dataset
from trtbench.data.load import read_dataset as read_dataset
from trtbench.data.load import save_dataset as save_dataset
from trtbench.data.preprocess import normalise as normalise
from trtbench.data.preprocess import pixel_sha256 as pixel_sha256
