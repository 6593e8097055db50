"""Prints the extra that fits this machine's driver, one word or nothing, for `make setup` to install."""

from __future__ import annotations

from trtbench.environment.gpus import ask_nvidia_smi, find_driver_cuda, fitting_extra

if __name__ == "__main__":
    lowest_sm = min((sm for _, sm in ask_nvidia_smi()), default=None)
    print(fitting_extra(find_driver_cuda(), lowest_sm=lowest_sm))  # noqa: T201  a Makefile reads this word
