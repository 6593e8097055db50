"""The command line: the only place that prints, reads argv or exits."""

from __future__ import annotations

from trtbench.cli.main import main

__all__ = ["main"]
