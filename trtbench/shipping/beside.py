"""A bundle in production beside a new run: the row of its name, and the row that the run recommends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.decide.compare import Matched
from trtbench.decide.ratios import is_measured
from trtbench.shipping.bundle import read_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.report.document import Report


def beside(folder: Path, shipped: Report, run: Report) -> Matched:
    """Return the pairs of rows to compare.

    Args:
        folder: of the bundle.
        shipped: the report in it.
        run: of the new run.

    Raises:
        ConfigError: a file of the bundle was changed.
    """
    bundle = read_bundle(folder)
    before = next((row for row in shipped.rows if row.name == bundle.row and is_measured(row)), None)
    wanted = dict.fromkeys((bundle.row, run.decision.winner))
    after = {row.name: row for row in run.rows if is_measured(row) and row.batch_size == bundle.batch_size}
    pairs = [(before, after[name]) for name in wanted if before is not None and name in after]
    return Matched(pairs=tuple(pairs), only_first=(), only_second=())
