"""What a command line answered."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What stands on standard output."""
        return json.loads(self.out)
