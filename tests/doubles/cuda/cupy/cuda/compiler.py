"""The error that compiling a kernel raises."""

from __future__ import annotations


class CompileException(Exception):
    """A kernel's source is wrong; the text is the compiler's."""
