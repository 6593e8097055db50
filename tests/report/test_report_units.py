"""Numbers as people read them."""

from __future__ import annotations

from trtbench.report.units import fixed, megabytes, millions, significant


def test_numbers_keep_three_digits_and_never_an_exponent() -> None:
    assert [significant(value) for value in (0.00012345, 0.5, 12.345, 12345.6, 0, None, -0.0444)] == [
        "0.000123",
        "0.500",
        "12.3",
        "12346",
        "0",
        "-",
        "-0.0444",
    ]
    assert (megabytes(1_500_000), millions(272_474), fixed(None)) == ("1.50", "0.272", "-")
