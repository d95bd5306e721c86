"""Straight lines by least squares, and bootstrap intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sailctl.core.types import DoubleArray

RESAMPLES = 500


def line(x: DoubleArray, y: DoubleArray) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    spread = ((y - y.mean()) ** 2).sum()
    return float(slope), float(intercept), float(1 - ((y - slope * x - intercept) ** 2).sum() / spread)


def interval(samples: Sequence[float] | DoubleArray) -> tuple[float, float]:
    """95% bootstrap interval; NaN where any resample has no answer."""
    low, high = np.quantile(samples, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_means(values: DoubleArray, rng: np.random.Generator) -> DoubleArray:
    """(RESAMPLES,) means of (seeds,) values over resampled seeds."""
    means: DoubleArray = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    return means
