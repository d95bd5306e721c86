"""Query selection: chooses the pairs that the teacher labels, when there are more than wanted.

The rules are those of B-Pref (Lee et al. 2021, arXiv 2111.03026: query selection; PEBBLE, arXiv 2106.05091).
B-Pref draws its candidates from a buffer of episodes; here they are the pairs of one iteration.
"""

from __future__ import annotations

import numpy as np

from sailctl.core.types import DoubleArray, IntArray, Pairs, SegmentBatch

CONSTANT = 1e-6
"""A component with a smaller standard deviation counts as constant; its variation is rounding."""


def choose(
    rule: str,
    count: int,
    pairs: Pairs,
    segments: SegmentBatch,
    chances: DoubleArray | None,
    rng: np.random.Generator,
) -> IntArray:
    """Choose the pairs to query.

    - ``uniform``: every set of ``count`` pairs is equally likely;
    - ``disagreement``: the largest standard deviation of P(first preferred) over the members of an ensemble;
    - ``entropy``: the largest entropy of the answer, mean over the members;
    - ``kcenter``: first a uniformly drawn pair, then always the pair farthest from all chosen pairs;
    - ``kcenter_disagreement``, ``kcenter_entropy``: ``kcenter`` among the half of the pairs (at least
      ``count``) with the largest disagreement or entropy, starting at the largest.

    Every rule draws exactly one permutation. It is the sample of ``uniform``, gives the first pair of
    ``kcenter``, and breaks ties.

    Args:
        rule: one of the above.
        count: number of pairs to choose, >= 0.
        pairs: the B candidates.
        segments: (S, H) the segments of the pairs.
        chances: (M, B) P(first preferred) by each of M members; may be None for ``uniform`` and ``kcenter``.
        rng: source of the permutation.

    Returns:
        (min(count, B),) indices into ``pairs``, distinct and ascending. With count >= B nothing is drawn.

    Raises:
        ValueError: when the rule is unknown, or requires ``chances`` and they are None.
    """
    if count >= len(pairs):
        return np.arange(len(pairs))
    order: IntArray = rng.permutation(len(pairs))
    if rule not in ("uniform", "kcenter"):
        uncertainty = uncertainty_of(rule.removeprefix("kcenter_"), chances)
        order = order[np.argsort(-uncertainty[order], kind="stable")]
    if rule.startswith("kcenter_"):
        order = order[: max(count, len(pairs) // 2)]
    if rule.startswith("kcenter"):
        order = order[k_center(pair_features(pairs.take(order), segments), count)]
    return np.sort(order[:count])


def uncertainty_of(measure: str, chances: DoubleArray | None) -> DoubleArray:
    """(B,) ``disagreement`` or ``entropy`` of pairs, given ``chances`` (M, B) of M members.

    Raises:
        ValueError: for any other measure, or without chances.
    """
    measures = {"disagreement": disagreement, "entropy": entropy}
    if measure not in measures:
        raise ValueError(f"unknown rule {measure!r}")
    if chances is None:
        raise ValueError(f"{measure} requires the chances of a reward model")
    return measures[measure](chances)


def disagreement(chances: DoubleArray) -> DoubleArray:
    """(B,) standard deviation of chances (M, B) over the M members, from 0 to 1/2."""
    deviation: DoubleArray = chances.std(axis=0)
    return deviation


def entropy(chances: DoubleArray) -> DoubleArray:
    """(B,) mean of -p log p - (1 - p) log(1 - p) over the M members, p in chances (M, B); at most log 2."""
    outcomes = np.stack([chances, 1.0 - chances])
    logs = np.log(outcomes, out=np.zeros_like(outcomes), where=outcomes > 0)
    mean: DoubleArray = -(outcomes * logs).sum(axis=0).mean(axis=0)
    return mean


def pair_features(pairs: Pairs, segments: SegmentBatch) -> DoubleArray:
    """(B, 2 H (O + A)) feature vectors of pairs: observations and actions of all steps of both segments.

    Each of the O + A components is standardised over the steps taken in ``segments``, so that its unit does
    not matter; a constant component becomes 0. A step that was not taken becomes 0, the mean.
    """
    steps = np.concatenate([segments.obs, segments.actions], axis=-1).astype(np.float64)
    taken = steps[segments.mask > 0]
    std = taken.std(axis=0)
    standard = (steps - taken.mean(axis=0)) / np.where(std > CONSTANT, std, np.inf)
    features = (standard * segments.mask[..., None]).reshape(segments.segments, -1)
    return np.concatenate([features[pairs.first], features[pairs.second]], axis=1)


def k_center(points: DoubleArray, count: int) -> IntArray:
    """Greedy k-center (Gonzalez 1985): first point 0, then always the point farthest from all chosen points.

    The largest distance from a point to its nearest chosen point is at most twice the minimum.

    Args:
        points: (N, D) points, compared by Euclidean distance; the first of equally far points is chosen.
        count: number of points to choose, at most N.

    Returns:
        (count,) indices of ``points``, distinct, in the order of choice.
    """
    chosen = np.zeros(count, dtype=np.int64)
    distance = np.full(len(points), np.inf)
    for i in range(count):
        centre = chosen[i] = distance.argmax()
        distance = np.minimum(distance, np.square(points - points[centre]).sum(axis=1))
        distance[centre] = -np.inf  # never chosen twice, even if all other points coincide with chosen points
    return chosen
