"""One fit loop for training, fine-tuning and distillation, and the logits of a network on a set of images."""

from __future__ import annotations

from trtbench.train.evaluate import predict as predict
from trtbench.train.hooks import Hooks as Hooks
from trtbench.train.logbook import EpochRecord as EpochRecord
from trtbench.train.logbook import FitRecord as FitRecord
from trtbench.train.loop import fit as fit
