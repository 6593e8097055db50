"""One suite on many machines: packed as a job for one that nothing reaches, or over a Ray cluster."""

from __future__ import annotations

from trtbench.fleet.jobs import Packed, open_job, opened, pack_job

__all__ = ["Packed", "open_job", "opened", "pack_job"]
