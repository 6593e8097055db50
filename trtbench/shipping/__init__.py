"""From the decision to the device: a bundle that proves itself, and what runs one."""

from __future__ import annotations

from trtbench.shipping.bundle import Bundle, Proof, read_bundle
from trtbench.shipping.predictor import Prediction, Predictor, load
from trtbench.shipping.ship import Shipped, ship_row

__all__ = ["Bundle", "Prediction", "Predictor", "Proof", "Shipped", "load", "read_bundle", "ship_row"]
