"""How a number is written for a reader: three significant digits, true minus signs, no false precision.

Every function takes ``None`` for what is undefined and answers with a dash, never with ``nan``. Where a measure has an
end of its range that means something (a cosine of 1, an angle of 0, a share of all), no other value is rounded to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

MISSING = "–"
_MINUS = "−"
_THIN = "\u202f"  # narrow no-break space, the thousands separator
_ROUNDING = 1e-9  # what float64 leaves of an exact 1
_LEVEL = 0.05  # of the tests: no p-value is rounded across it


def _signed(text: str) -> str:
    return text.replace("-", _MINUS) if text.startswith("-") else text


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{_signed(mantissa)}e{int(exponent)}"


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands, such as ``75 000``."""
    return MISSING if value is None else _signed(f"{round(value):,}".replace(",", _THIN))


def significant(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits; an exponent below 0.001, thousands spaced from 1 000 up."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if abs(value) >= 1e7 or abs(value) < 1e-3:
        return _scientific(value, digits)
    if abs(value) >= 1000:
        return count(value)
    return _signed(f"{value:#.{digits}g}".rstrip("."))


def fixed(value: float | None, digits: int = 3) -> str:
    """``digits`` decimals, for columns whose values share one scale (a cosine, an overlap)."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else _signed(text)


def cosine(value: float | None, digits: int = 3) -> str:
    """``digits`` decimals of what lies within -1 and 1; ``>0.999`` where 1 would be said of what is not equal."""
    if value is None:
        return MISSING
    if 1 - abs(value) > _ROUNDING and round(abs(value), digits) == 1:
        nearest = f"{1 - 10**-digits:.{digits}f}"
        return f">{nearest}" if value > 0 else f"<{_MINUS}{nearest}"
    return fixed(value, digits)


def degrees(value: float | None) -> str:
    """An angle from 0 to 90 degrees with one decimal, two below one degree; ``<0.01°`` and ``>89.9°`` near the ends."""
    if value is None:
        return MISSING
    if value == 0:
        return "0°"
    if value < 0.005:
        return "<0.01°"
    if value < 0.995:
        return f"{value:.2f}°"
    return ">89.9°" if 89.95 <= value < 90 else f"{value:.1f}°"


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage; ``<0.1%`` and ``>99.9%`` for what is not none and not all."""
    if value is None:
        return MISSING
    least = 10**-digits if digits else 1
    if value != 0 and round(100 * abs(value), digits) == 0:
        return f"<{least:.{digits}f}%" if value > 0 else f">{_MINUS}{least:.{digits}f}%"
    if abs(value) < 1 and round(100 * abs(value), digits) == 100:
        return f">{100 - least:.{digits}f}%" if value > 0 else f"<{_MINUS}{100 - least:.{digits}f}%"
    return f"{fixed(100 * value, digits)}%"


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Two shares of 1 as the ends of an interval in percent, empty where either is undefined."""
    if low is None or high is None:
        return ""
    return f"{fixed(100 * low, digits)}–{fixed(100 * high, digits)}"


def rate(value: float | None) -> str:
    """A learning rate in the shortest exact form: ``5e-6``, ``3e-4``, ``0.05``."""
    if value is None:
        return MISSING
    if value == 0 or 1e-2 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return _scientific(value, 4)


def p_value(value: float | None) -> str:
    """Two significant digits, more where they would cross 0.05; ``<1e-9`` below that, ``>0.99`` short of 1."""
    if value is None:
        return MISSING
    if value < 1e-9:
        return "<1e-9"
    if value == 1:
        return "1"
    if value >= 0.995:
        return ">0.99"
    if value < 1e-3:
        return _scientific(value, 2)
    if value >= 0.0995:
        return f"{value:.2f}"
    for digits in range(2, 6):
        shown = f"{value:#.{digits}g}"
        if (float(shown) < _LEVEL) == (value < _LEVEL) and (float(shown) == _LEVEL) == (value == _LEVEL):
            return shown
    return f"{'<' if value < _LEVEL else '>'}{_LEVEL}"


def span(values: Iterable[float | None]) -> str:
    """Whole numbers as one or as their range: ``10``, ``4 to 10``; empty where none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def times(value: float | None) -> str:
    """A ratio: ``0.98×``."""
    return MISSING if value is None else f"{significant(value)}×"


def gib(value: float | None) -> str:
    """Memory to a hundredth of a GiB."""
    return MISSING if value is None else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """A duration: seconds below two minutes, then minutes and seconds, then hours and minutes."""
    if value is None:
        return MISSING
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def listing(parts: list[str]) -> str:
    """Words joined as in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def left_out(rows: Sequence[Mapping[str, str]]) -> str:
    """Modules that a measurement left out, a reason at a time: "lm_head (the output head)"; empty for none."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reasons.setdefault(row["why"], []).append(row["module"])
    names = {why: held[0] if len(held) == 1 else f"{len(held)} modules as {held[0]}" for why, held in reasons.items()}
    return ", ".join(f"{name} ({why})" for why, name in names.items())
