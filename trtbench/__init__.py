"""Which compressed variant of this CNN should I ship to this GPU?"""

from __future__ import annotations

__version__ = "0.1.0"
