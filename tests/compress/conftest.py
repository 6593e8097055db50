"""What every test of compression stands on."""

from __future__ import annotations
