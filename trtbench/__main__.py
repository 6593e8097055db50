"""`python -m trtbench`."""

from trtbench.cli import main

main()
