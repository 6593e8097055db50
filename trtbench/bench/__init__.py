"""Measurement: worker processes, latency, accuracy, statistics."""
