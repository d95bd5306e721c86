"""The proximal map of rho |h| where h is linear, and the gradient of the Moreau envelope."""

from __future__ import annotations

import numpy as np

from sailctl.core.types import DoubleArray


def prox_abs(theta: DoubleArray, slope: DoubleArray, offset: float, weight: float) -> DoubleArray:
    """The proximal map of one pair, in closed form.

    It is argmin_x weight * |slope . x + offset| + |x - theta|^2 / 2.

    Args:
        theta: (d,) the point.
        slope: (d,) gradient of the pair's score, not zero.
        offset: score of the pair at x = 0.
        weight: step size times rho, >= 0.

    Returns:
        (d,) the minimiser: theta moved along the slope until the score is 0, by ``weight`` slopes at most.
    """
    move = np.clip((slope @ theta + offset) / (slope @ slope), -weight, weight)
    moved: DoubleArray = theta - move * slope
    return moved


def moreau_gradient(theta: DoubleArray, prox: DoubleArray, size: float) -> DoubleArray:
    """Gradient of the Moreau envelope: (theta - prox) / size, with ``prox`` the proximal point of ``theta``.

    For a weakly convex objective phi (phi + |.|^2 / (2 size) convex) its norm measures stationarity: where it
    is small, theta is near a point at which phi has a small subgradient (Davis and Drusvyatskiy 2019).

    Args:
        theta: (d,) the point.
        prox: (d,) argmin_x phi(x) + |x - theta|^2 / (2 size), over the constraint set.
        size: lambda > 0.

    Returns:
        (d,) the gradient.
    """
    gradient: DoubleArray = (theta - prox) / size
    return gradient
