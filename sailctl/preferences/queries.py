"""Which comparisons are put to the teacher, when it is not to be asked about all of them.

The rules are those of B-Pref (Lee et al. 2021, arXiv 2111.03026: query selection; PEBBLE, arXiv 2106.05091).
B-Pref draws its candidates from a buffer of episodes; here they are the pairs of one iteration.
"""

from __future__ import annotations

import numpy as np

from sailctl.core.types import DoubleArray, IntArray, Pairs, SegmentBatch

CONSTANT = 1e-6
"""A component with a smaller standard deviation never varies, but for rounding."""


def choose(
    rule: str,
    count: int,
    pairs: Pairs,
    segments: SegmentBatch,
    chances: DoubleArray | None,
    rng: np.random.Generator,
) -> IntArray:
    """The pairs to ask about.

    - ``uniform``: every set of ``count`` pairs is equally likely;
    - ``disagreement``: the largest standard deviation of P(first preferred) over the members of an ensemble;
    - ``entropy``: the largest entropy of the answer, mean over the members;
    - ``kcenter``: from a first pair, drawn uniformly, always on to the pair farthest from all chosen ones;
    - ``kcenter_disagreement``, ``kcenter_entropy``: the half of the pairs (but ``count`` at least) with the
      largest disagreement or entropy is kept, and ``kcenter`` goes through it from the one with the largest.

    One permutation is drawn, whatever the rule, the pairs and the chances are: it is the draw of ``uniform``
    and of the first pair of ``kcenter``, and decides between equals.

    Args:
        rule: one of the above.
        count: how many, >= 0.
        pairs: the B candidates.
        segments: the segments that they compare.
        chances: (M, B) P(first preferred) by each of M members; None will do for ``uniform`` and ``kcenter``.
        rng: where the permutation is drawn from.

    Returns:
        (min(count, B),) places in ``pairs``, distinct and ascending; where these are all, without a draw.

    Raises:
        ValueError: when there is no such rule, or it needs chances and has none.
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
    """(B,) ``disagreement`` or ``entropy`` of pairs with the chances (M, B) of M members.

    Raises:
        ValueError: for another measure, or without chances.
    """
    measures = {"disagreement": disagreement, "entropy": entropy}
    if measure not in measures:
        raise ValueError(f"there is no rule {measure!r}")
    if chances is None:
        raise ValueError(f"{measure} needs the chances of a reward model")
    return measures[measure](chances)


def disagreement(chances: DoubleArray) -> DoubleArray:
    """(B,) standard deviation over the M members of chances (M, B): from 0 to 1/2."""
    deviation: DoubleArray = chances.std(axis=0)
    return deviation


def entropy(chances: DoubleArray) -> DoubleArray:
    """(B,) mean over the M members of -p log p - (1 - p) log(1 - p), p in chances (M, B): log 2 at most."""
    both = np.stack([chances, 1.0 - chances])
    logs = np.log(both, out=np.zeros_like(both), where=both > 0)
    mean: DoubleArray = -(both * logs).sum(axis=0).mean(axis=0)
    return mean


def pair_features(pairs: Pairs, segments: SegmentBatch) -> DoubleArray:
    """(B, 2 H (O + A)) where a pair lies: observations and actions of both segments, step after step.

    Each of the O + A components is standardised over the steps taken in ``segments``, so that none of them
    counts more for its unit; one that never varies is 0. A step that was not taken is 0, the mean, as well.
    """
    steps = np.concatenate([segments.obs, segments.actions], axis=-1).astype(np.float64)
    taken = steps[segments.mask > 0]
    spread = taken.std(axis=0)
    standard = (steps - taken.mean(axis=0)) / np.where(spread > CONSTANT, spread, np.inf)
    places = (standard * segments.mask[..., None]).reshape(segments.segments, -1)
    return np.concatenate([places[pairs.first], places[pairs.second]], axis=1)


def k_center(points: DoubleArray, count: int) -> IntArray:
    """Greedy k-center (Gonzalez 1985): from the first point, always on to the point farthest from all chosen.

    The largest distance from a point to its nearest chosen one is at most twice the least possible.

    Args:
        points: (N, D) points, compared by Euclidean distance; among equally far ones the first is taken.
        count: how many to choose, at most N.

    Returns:
        (count,) rows of ``points``, distinct, in the order of choice.
    """
    chosen = np.zeros(count, dtype=np.int64)
    distance = np.full(len(points), np.inf)
    for i in range(count):
        centre = chosen[i] = distance.argmax()
        distance = np.minimum(distance, np.square(points - points[centre]).sum(axis=1))
        distance[centre] = -np.inf  # not again, not even where all others coincide with chosen ones
    return chosen
