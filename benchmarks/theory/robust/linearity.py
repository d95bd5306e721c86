"""Over several control steps h is quadratic in theta: what that does to the proximal map of |h|."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.control import POLICY, REFERENCE, Control, linear_policy
from benchmarks.theory.prox import prox_abs
from sailctl.core.types import DoubleArray

WEIGHTS = tuple((0.2 * 0.5 ** np.arange(8)).tolist())
"""Step size times rho, for each proximal map."""


@dataclass(frozen=True)
class SegmentPair:
    """The score h of two segments of the linear system, for a linear-Gaussian policy."""

    score: float
    """h at theta."""
    slope: DoubleArray
    """(d,) its gradient."""
    bend: DoubleArray
    """(d, d) its Hessian, the same at every theta: h is quadratic."""

    def at(self, theta: DoubleArray, x: DoubleArray) -> float:
        """h at x."""
        move = x - theta
        return float(self.score + self.slope @ move + move @ self.bend @ move / 2)

    def exact_prox(self, theta: DoubleArray, weight: float) -> DoubleArray:
        """argmin_x weight |h(x)| + |x - theta|^2 / 2, for a weight small enough to keep it convex.

        weight |h| is the maximum of u h over |u| <= weight. For a fixed u the minimum solves a linear system,
        and h falls along u: the saddle is where h = 0, or at an end of the interval.
        """
        eye = np.eye(len(theta))

        def held(u: float) -> DoubleArray:
            point: DoubleArray = theta - np.linalg.solve(eye + u * self.bend, u * self.slope)
            return point

        end = weight * np.sign(self.score)
        if np.sign(self.at(theta, held(end))) == np.sign(self.score):
            return held(end)
        low, high = 0.0, end
        for _ in range(200):
            middle = (low + high) / 2
            if np.sign(self.at(theta, held(middle))) == np.sign(self.score):
                low = middle
            else:
                high = middle
        return held((low + high) / 2)

    def linear_prox(self, theta: DoubleArray, weight: float) -> DoubleArray:
        """The same with h linearised around theta, as the learner does it."""
        return prox_abs(theta, self.slope, float(self.score - self.slope @ theta), weight)


def trajectories(length: int) -> tuple[Control, Tensor, Tensor]:
    """All trajectories of ``length`` steps from the first start, with three nodes for each action."""
    control = Control(segment=length, judged=length, nodes=3)
    with torch.no_grad():
        states, actions, _ = control.rollout(linear_policy(POLICY), control.STARTS[0])
    return control, states, actions


def segment_scores(control: Control, theta: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """(T,) beta log pi_theta / pi_ref of each trajectory by the project's policy."""
    return control.beta * control.log_ratio(linear_policy(theta), linear_policy(REFERENCE), states, actions)


def segment_pair(control: Control, states: Tensor, actions: Tensor, one: int, other: int) -> SegmentPair:
    """h of two trajectories and its derivatives, for a policy with a fixed standard deviation.

    log pi(a|s) is -(a - theta . f(s))^2 / (2 std^2) and a constant: quadratic in theta. In the same state
    the quadratic parts of two actions cancel; in later states, which differ, they do not.
    """
    features = torch.cat([states, torch.ones_like(states[..., :1])], dim=-1).numpy()
    theta = np.array(POLICY)
    variance = float(linear_policy(POLICY).log_std.exp().square())
    error = actions[..., 0].numpy() - features @ theta
    slope = control.beta / variance * np.einsum("tl,tld->td", error, features)
    bend = -control.beta / variance * np.einsum("tld,tle->tde", features, features)
    with torch.no_grad():
        score = segment_scores(control, torch.from_numpy(theta), states, actions).numpy()
    return SegmentPair(float(score[one] - score[other]), slope[one] - slope[other], bend[one] - bend[other])


def linearity_rows() -> list[Row]:
    """How curved h is over H steps, and how far the prox-linear step is from the exact proximal point.

    ``second_difference``: largest |h(theta + v) + h(theta - v) - 2 h(theta)| for random v of length 1, by
    the project's own policy, over the spread of h; ``distance``: from the linear to the exact proximal
    point, over the length of the step.
    """
    rows: list[Row] = []
    rng = np.random.default_rng(0)
    theta = torch.tensor(POLICY, dtype=torch.float64)
    for length in (1, 2, 3, 4):
        control, states, actions = trajectories(length)
        with torch.no_grad():
            middle = segment_scores(control, theta, states, actions)
            spread = middle.max() - middle.min()
            largest = 0.0
            for _ in range(20):
                v = torch.from_numpy(rng.normal(size=3))
                v = v / v.norm()
                ends = [segment_scores(control, theta + sign * v, states, actions) for sign in (1, -1)]
                second = ends[0] + ends[1] - 2 * middle
                largest = max(largest, float(second.max() - second.min()))
        pairs = [
            segment_pair(control, states, actions, *rng.choice(len(states), 2, replace=False))
            for _ in range(200)
        ]
        for weight in WEIGHTS:
            exact = [pair.exact_prox(theta.numpy(), weight) for pair in pairs]
            linear = [pair.linear_prox(theta.numpy(), weight) for pair in pairs]
            apart = np.linalg.norm(np.array(exact) - np.array(linear), axis=1)
            moved = np.linalg.norm(np.array(exact) - theta.numpy(), axis=1)
            rows.append(
                {
                    "H": length,
                    "second_difference": largest / float(spread),
                    "weight": weight,
                    "pairs": len(pairs),
                    "distance_median": float(np.median(apart / moved)),
                    "distance_max": float((apart / moved).max()),
                }
            )
    return rows
