"""Formats numbers in the same way for terminal, Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from sailctl.analysis.statistics import Estimate

NOTHING = "-"
"""Shown in place of an undefined number."""


def places(values: Iterable[float], most: int = 3) -> int:
    """Number of decimals for three significant digits of a typical value, at most ``most``."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    return min(most, max(0, 2 - math.floor(math.log10(np.median(sizes))))) if sizes else 2


def number(value: float, decimals: int, sign: str = "") -> str:
    """``value`` with thousands separators; ``sign="+"`` shows the sign of positive numbers too."""
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    rounded = round(value, decimals) + 0.0  # turns -0 into 0
    return f"{rounded:{sign if rounded else ''},.{decimals}f}"


def estimate(result: Estimate, decimals: int, sign: str = "") -> str:
    """``value [low, high]``, or the value alone if it has no interval."""
    value = number(result.value, decimals, sign)
    if math.isnan(result.value) or not math.isfinite(result.low):
        return value
    return f"{value} [{number(result.low, decimals, sign)}, {number(result.high, decimals, sign)}]"


def places_of(results: Iterable[Estimate]) -> int:
    """``places`` of values and of the ends of their intervals."""
    return places(end for result in results for end in (result.value, result.low, result.high))


def p_value(p: float) -> str:
    """A p-value with three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def counts(values: Iterable[float]) -> str:
    """``5``, or ``3 to 5``."""
    low, *_, high = sorted([*values] * 2)
    return number(low, 0) if low == high else f"{number(low, 0)} to {number(high, 0)}"
