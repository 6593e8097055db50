"""`trtbench` and `python -m trtbench`: signals are heeded before the verbs are imported, which takes a while."""

from __future__ import annotations

from trtbench.ending import heed_signals


def main() -> None:
    """Run the command line."""
    heed_signals()
    from trtbench.cli import main as verb

    verb()


if __name__ == "__main__":
    main()
