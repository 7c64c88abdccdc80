"""Numbers as people read them."""

from __future__ import annotations


def count(number: float) -> str:
    """Three digits and a power of a thousand.

    >>> count(848_000_000), count(950), count(1_244_448)
    ('848 M', '950', '1.24 M')
    """
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= 0.9995 * scale:
            return f"{_three(number / scale)} {unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes, in units of 1000.

    >>> size(5_002_087), size(12)
    ('5.00 MB', '12 B')
    """
    text = count(number)
    return text.replace(" k", " kB").replace(" M", " MB").replace(" G", " GB") if " " in text else f"{text} B"


def percent(share: float) -> str:
    """A share of 0 to 1.

    >>> percent(0.6667)
    '66.7 %'
    """
    return f"{100 * share:.1f} %"


def milliseconds(number: float) -> str:
    """Three digits.

    >>> milliseconds(74.66), milliseconds(0.012345)
    ('74.7 ms', '0.0123 ms')
    """
    return f"{_three(number)} ms"


def times(ratio: float) -> str:
    """A ratio.

    >>> times(3.512)
    '3.51x'
    """
    return f"{_three(ratio)}x"


def _three(number: float) -> str:
    """Three significant digits, without an exponent."""
    if number == 0:
        return "0"
    digits = 2
    magnitude = abs(number)
    while magnitude >= 9.995 and digits > 0:
        magnitude, digits = magnitude / 10, digits - 1
    while magnitude < 0.9995 and digits < 6:
        magnitude, digits = magnitude * 10, digits + 1
    return f"{number:.{digits}f}"
