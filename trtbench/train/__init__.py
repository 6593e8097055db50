"""One fit loop for training, fine-tuning and distillation, and the logits of a network on a set of images."""

from __future__ import annotations

from trtbench.train.evaluate import predict
from trtbench.train.hooks import Hooks
from trtbench.train.logbook import EpochRecord, FitRecord
from trtbench.train.loop import fit

__all__ = ["EpochRecord", "FitRecord", "Hooks", "fit", "predict"]
