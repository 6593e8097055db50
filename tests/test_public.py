"""The public names load when they are used, and each is documented."""

from __future__ import annotations

import inspect

import pytest

import trtbench


@pytest.mark.parametrize("name", [name for name in trtbench.__all__ if not name.startswith("__")])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(trtbench, name))


def test_the_names_are_listed_and_others_are_refused() -> None:
    assert set(dir(trtbench)) == set(trtbench.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = trtbench.no_such_name
