"""The page of hosts says what `gpu-info` would say there, and nothing of a host that it was not run on."""

from __future__ import annotations

import re
from pathlib import Path

from trtbench.environment import Gpu, capabilities

_PAGE = (Path(__file__).parents[1] / "docs" / "hosts.md").read_text(encoding="utf-8")


def test_what_each_gpu_can_do_is_what_gpu_info_says_of_it() -> None:
    table = _PAGE.split("<!-- capabilities -->")[1].split("<!-- capabilities end -->")[0]
    lines = re.findall(r"^\| ([^|]+) \| (\d+)\.(\d+) \| ([^|]+) \|$", table, re.MULTILINE)

    assert len(lines) == 6
    for name, major, minor, can in lines:
        gpu = Gpu(index=0, uuid="GPU-1", name=name, compute_capability=(int(major), int(minor)))
        assert can == ", ".join(one.name for one in capabilities(gpu) if one.is_available), name


def test_every_kind_of_host_says_what_installs_runs_is_refused_and_is_unknown() -> None:
    for name in ("A10", "L4", "RTX 4090", "H100", "H200", "Jetson Orin", "Spark", "WSL"):
        assert name in _PAGE
    for section in _PAGE.split("\n## ")[1:]:
        heads = re.findall(r"^\| (installs|asks for|runs|is refused|is unknown) \|", section, re.MULTILINE)
        assert heads[1:] == ["runs", "is refused", "is unknown"], section[:40]


def test_the_tests_that_the_page_rests_on_are_there() -> None:
    for place in re.findall(r"`(tests/[\w/.]+)`", _PAGE):
        assert (Path(__file__).parents[1] / place).exists(), place
