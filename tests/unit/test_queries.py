"""Query selection: every rule against an example worked out by hand or by force, and the draws it makes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sailctl.config import MODEL_RULES, RULES
from sailctl.core.types import DoubleArray, IntArray, Pairs, SegmentBatch
from sailctl.preferences.queries import choose, disagreement, entropy, k_center, pair_features

CHI_SQUARE_999 = {5: 20.5, 27: 55.5}
"""0.999 quantiles of chi-square with so many degrees of freedom."""


def on_a_line(places: list[float], steps: int = 2) -> tuple[SegmentBatch, Pairs]:
    """One pair for each place: its first segment rests there, its second at 0, both do nothing."""
    obs = np.zeros((2 * len(places), steps, 1), np.float32)
    obs[::2] = np.array(places)[:, None, None]
    shape = (2 * len(places), steps)
    first = 2 * np.arange(len(places))
    segments = SegmentBatch(obs, np.zeros((*shape, 1), np.float32), np.ones(shape, np.float32), 2)
    return segments, Pairs(first, first + 1, np.arange(len(places)))


def noise(count: int, seed: int = 0) -> tuple[SegmentBatch, Pairs, DoubleArray]:
    """``count`` pairs of segments of noise that end early, with chances of three members."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(4) < rng.integers(1, 5, 2 * count)[:, None]).astype(np.float32)
    obs, actions = (rng.normal(size=(2 * count, 4, size)).astype(np.float32) for size in (3, 2))
    first = 2 * np.arange(count)
    pairs = Pairs(first, first + 1, np.arange(count))
    return SegmentBatch(obs, actions, mask, 2), pairs, rng.uniform(size=(3, count))


def chosen(rule: str, count: int, places: list[float], chances: object = None, seed: int = 0) -> list[int]:
    segments, pairs = on_a_line(places)
    given_chances = None if chances is None else np.array(chances, dtype=np.float64)
    rows = choose(rule, count, pairs, segments, given_chances, np.random.default_rng(seed))
    assert rows.dtype == np.int64
    return rows.tolist()


def draws(rule: str, count: int, chances: object, times: int) -> list[list[int]]:
    """What one generator chooses again and again among as many pairs as ``chances`` has columns."""
    values, rng = np.array(chances, dtype=np.float64), np.random.default_rng(11)
    segments, pairs = on_a_line([0.0] * values.shape[1])
    return [choose(rule, count, pairs, segments, values, rng).tolist() for _ in range(times)]


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 for count in counts) / expected


# Every rule


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [0, 1, 5, 11, 12, 13, 100])
def test_as_many_as_asked_for_distinct_and_in_order(rule: str, count: int):
    segments, pairs, chances = noise(12)
    rows = choose(rule, count, pairs, segments, chances, np.random.default_rng(0))
    assert len(rows) == min(count, 12)
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(range(12))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [12, 13])
def test_all_are_chosen_without_a_draw(rule: str, count: int):
    segments, pairs, _ = noise(12)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert choose(rule, count, pairs, segments, None, rng).tolist() == list(range(12))
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_chosen_among_nothing(rule: str):
    segments, pairs, _ = noise(3)
    rng = np.random.default_rng(0)
    none = pairs.head(0)
    assert choose(rule, 4, none, segments, None, rng).tolist() == []
    assert choose(rule, 0, none, segments, None, rng).tolist() == []


@pytest.mark.parametrize("rule", RULES)
def test_what_is_drawn_depends_on_the_number_of_pairs_alone(rule: str):
    """So that no later draw of this generator depends on what the policy did or on what a model thinks."""
    after = set()
    for seed, other_rule, count in ((0, rule, 3), (1, rule, 0), (2, "uniform", 7)):
        segments, pairs, chances = noise(12, seed)
        rng = np.random.default_rng(5)
        choose(other_rule, count, pairs, segments, chances, rng)
        after.add(rng.integers(2**62))
    assert len(after) == 1


@pytest.mark.parametrize("rule", RULES)
def test_the_generator_is_all_the_chance_there_is(rule: str):
    segments, pairs, chances = noise(12)
    one, again = (
        choose(rule, 4, pairs, segments, chances, np.random.default_rng(seed)).tolist() for seed in (3, 3)
    )
    assert one == again


@pytest.mark.parametrize("rule", MODEL_RULES)
def test_a_rule_about_a_model_needs_one(rule: str):
    segments, pairs, _ = noise(12)
    with pytest.raises(ValueError, match="requires the chances of a reward model"):
        choose(rule, 4, pairs, segments, None, np.random.default_rng(0))


@pytest.mark.parametrize("rule", ["best", "kcenter_best", ""])
def test_an_unknown_rule_is_refused(rule: str):
    segments, pairs, chances = noise(12)
    with pytest.raises(ValueError, match="unknown rule"):
        choose(rule, 4, pairs, segments, chances, np.random.default_rng(0))


# Uniform


def test_uniform_gives_every_set_the_same_chance():
    """The 28 pairs out of 8, 14,000 times: chi-square below its 0.999 quantile at this seed."""
    sets = draws("uniform", 2, np.zeros((1, 8)), 14_000)
    counts = [sets.count(list(both)) for both in itertools.combinations(range(8), 2)]
    assert chi_square(counts) < CHI_SQUARE_999[27]


# Uncertainty


def test_disagreement_takes_the_largest_deviations():
    chances = [
        [0.5, 0.9, 0.4, 1.0, 0.7],
        [0.5, 0.1, 0.6, 1.0, 0.5],
        [0.5, 0.5, 0.5, 1.0, 0.9],
    ]
    # deviations: 0, 0.33, 0.08, 0, 0.16
    np.testing.assert_allclose(disagreement(np.array(chances)) ** 2, [0, 0.32 / 3, 0.02 / 3, 0, 0.08 / 3])
    assert chosen("disagreement", 1, [0.0] * 5, chances) == [1]
    assert chosen("disagreement", 2, [0.0] * 5, chances) == [1, 4]
    assert chosen("disagreement", 3, [0.0] * 5, chances) == [1, 2, 4]


def test_entropy_takes_the_least_certain_answers():
    chances = [[0.5, 0.5, 0.0, 1.0, 0.3], [0.5, 0.1, 1.0, 1.0, 0.3]]
    of = {p: -p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.1, 0.3, 0.5)}
    expected = [of[0.5], (of[0.5] + of[0.1]) / 2, 0.0, 0.0, of[0.3]]
    np.testing.assert_allclose(entropy(np.array(chances)), expected, atol=1e-15)
    assert of[0.5] == pytest.approx(math.log(2))
    # Members who are sure of opposite answers disagree most, and yet neither finds the answer uncertain.
    assert chosen("entropy", 1, [0.0] * 5, chances) == [0]
    assert chosen("entropy", 2, [0.0] * 5, chances) == [0, 4]
    assert chosen("entropy", 3, [0.0] * 5, chances) == [0, 1, 4]
    assert chosen("disagreement", 1, [0.0] * 5, chances) == [2]


@pytest.mark.parametrize("rule", MODEL_RULES)
def test_equals_are_told_apart_by_the_generator_alone(rule: str):
    """Six equal pairs beside two certain ones, one chosen 6,000 times: chi-square at this seed."""
    chances = np.tile([0.99, 0.99, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2], (2, 1))
    if "disagreement" in rule:
        chances[1, 2:] = 0.8
    rows = [row for (row,) in draws(rule, 1, chances, 6000)]
    counts = [rows.count(row) for row in range(8)]
    assert counts[:2] == [0, 0]
    assert chi_square(counts[2:]) < CHI_SQUARE_999[5]


def test_a_single_member_never_disagrees_and_so_chooses_uniformly():
    rows = [row for (row,) in draws("disagreement", 1, [[0.1, 0.5, 0.9, 0.3, 1.0, 0.0]], 6000)]
    assert chi_square([rows.count(row) for row in range(6)]) < CHI_SQUARE_999[5]


# K-center


def greedy_by_force(points: DoubleArray, first: int, count: int) -> list[int]:
    rows = [first]
    while len(rows) < count:
        nearest = [
            -1.0 if i in rows else min(math.dist(point, points[row]) for row in rows)
            for i, point in enumerate(points)
        ]
        rows.append(nearest.index(max(nearest)))
    return rows


def test_k_center_on_a_line():
    points = np.array([4.0, 0.0, 1.0, 10.0, 9.0])[:, None]
    assert k_center(points, 0).tolist() == []
    # from 4: the farthest is 10; then 0 is 4 away, 1 is 3 and 9 is 1; then 1 and 9 are both 1 away
    assert k_center(points, 5).tolist() == [0, 3, 1, 2, 4]


@given(st.data())
def test_k_center_is_greedy(data: st.DataObject):
    size = data.draw(st.integers(1, 9))
    places = st.tuples(*[st.integers(-5, 5).map(float)] * 2)
    points = np.array(data.draw(st.lists(places, min_size=size, max_size=size)))
    count = data.draw(st.integers(1, size))
    rows = k_center(points, count).tolist()
    assert rows == greedy_by_force(points, 0, count)
    assert len(set(rows)) == count


@given(st.data())
def test_k_center_is_at_most_twice_as_wide_as_the_best_cover(data: st.DataObject):
    """Gonzalez 1985; the best cover by force over all sets of so many centres."""
    size = data.draw(st.integers(2, 8))
    coordinate = st.floats(-10, 10, allow_nan=False)
    points = np.array(data.draw(st.lists(st.tuples(coordinate, coordinate), min_size=size, max_size=size)))
    count = data.draw(st.integers(1, size))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)

    def width(centres: IntArray) -> float:
        return float(distance[:, centres].min(axis=1).max())

    best = min(width(np.array(centres)) for centres in itertools.combinations(range(size), count))
    assert width(k_center(points, count)) <= 2 * best + 1e-9


def test_kcenter_spreads_the_questions_from_a_drawn_one():
    """On a line, where standardising keeps the order of the distances."""
    places = [0.0, 1.0, 2.0, 3.0, 20.0, 21.0]
    points, firsts = np.array(places)[:, None], set()
    for seed in range(40):
        (first,) = chosen("kcenter", 1, places, seed=seed)
        firsts.add(first)
        for count in (2, 3):
            assert chosen("kcenter", count, places, seed=seed) == sorted(
                greedy_by_force(points, first, count)
            )
    assert firsts == set(range(6))


def test_kcenter_draws_its_first_pair_uniformly():
    segments, pairs = on_a_line([0.0, 1.0, 2.0, 3.0, 20.0, 21.0])
    rng = np.random.default_rng(2)
    rows = [int(choose("kcenter", 1, pairs, segments, None, rng)[0]) for _ in range(6000)]
    assert chi_square([rows.count(row) for row in range(6)]) < CHI_SQUARE_999[5]


def test_kcenter_chooses_pairs_that_coincide_once_each():
    assert chosen("kcenter", 3, [2.0, 2.0, 2.0, 2.0]) != []
    for seed in range(10):
        assert len(set(chosen("kcenter", 3, [1.0, 1.0, 1.0, 5.0], seed=seed))) == 3
        assert 3 in chosen("kcenter", 2, [1.0, 1.0, 1.0, 5.0], seed=seed)


# Where a pair lies


def test_features_are_standardised_over_the_steps_that_were_taken():
    segments, pairs, _ = noise(10)
    places = pair_features(pairs, segments)
    assert places.shape == (10, 2 * 4 * 5)
    both = places.reshape(10, 2, 4, 5)
    taken = np.stack([segments.mask[pairs.first], segments.mask[pairs.second]], axis=1) > 0
    np.testing.assert_allclose(both[taken].mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(both[taken].std(0), 1.0, rtol=1e-12)
    assert (both[~taken] == 0).all()
    steps = np.concatenate([segments.obs, segments.actions], axis=-1)
    for component in range(5):
        at_start = both[:, 1, 0, component]
        assert np.corrcoef(at_start, steps[pairs.second, 0, component])[0, 1] == pytest.approx(1.0)


def test_features_do_not_depend_on_units_or_on_what_lies_behind_an_end():
    segments, pairs, _ = noise(10)
    unit = np.array([1.0, 64.0, 0.25], np.float32)
    behind = 1 - segments.mask[..., None]
    other = SegmentBatch(
        segments.obs * unit + np.float32(3.0) + 100 * behind,
        segments.actions * np.float32(8.0) - 100 * behind,
        segments.mask,
        2,
    )
    np.testing.assert_allclose(pair_features(pairs, other), pair_features(pairs, segments), atol=1e-5)


def test_a_component_that_never_varies_but_for_rounding_counts_for_nothing():
    segments, pairs, _ = noise(10)
    obs = segments.obs.copy()
    obs[..., 1] = np.where(obs[..., 0] > 0, np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1)))
    still = pair_features(pairs, SegmentBatch(obs, segments.actions, segments.mask, 2))
    assert (still.reshape(10, 2, 4, 5)[..., 1] == 0).all()
    assert np.isfinite(still).all()


def test_features_are_those_of_both_segments_in_their_order():
    segments, pairs, _ = noise(10)
    swapped = pair_features(Pairs(pairs.second, pairs.first, pairs.group), segments)
    np.testing.assert_array_equal(np.roll(swapped, 20, axis=1), pair_features(pairs, segments))


# Hybrids


def chances_of(measure: str, wanted: list[float]) -> list[list[float]]:
    """Chances of two members whose disagreement or entropy ranks the pairs as ``wanted`` does."""
    if measure == "disagreement":
        return [[0.5 + level / 2 for level in wanted], [0.5 - level / 2 for level in wanted]]
    return [[1 - level / 2 for level in wanted]] * 2


@pytest.mark.parametrize("measure", ["disagreement", "entropy"])
def test_hybrids_cover_the_uncertain_half(measure: str):
    """From the most uncertain pair to the farthest; pair 6, farther than all, is too certain to be asked."""
    wanted = [0.9, 0.8, 0.3, 0.85, 0.7, 0.6, 0.1, 0.2]
    chances = chances_of(measure, wanted)
    places = [0.0, 5.0, 50.0, 1.0, 6.0, -20.0, 100.0, 7.0]
    for seed in range(5):
        assert chosen(f"kcenter_{measure}", 1, places, chances, seed) == [0]
        assert chosen(f"kcenter_{measure}", 2, places, chances, seed) == [0, 4]
        assert chosen(f"kcenter_{measure}", 3, places, chances, seed) in ([0, 1, 4], [0, 3, 4])
        assert chosen(measure, 2, places, chances, seed) == [0, 3]


@pytest.mark.parametrize("measure", ["disagreement", "entropy"])
def test_hybrids_prefer_the_more_uncertain_of_two_that_are_equally_far(measure: str):
    wanted = [0.9, 0.5, 0.6, 0.1, 0.2, 0.0]
    places = [0.0, 4.0, 4.0, 9.0, 9.0, 9.0]
    for seed in range(10):
        assert chosen(f"kcenter_{measure}", 2, places, chances_of(measure, wanted), seed) == [0, 2]


@pytest.mark.parametrize("measure", ["disagreement", "entropy"])
def test_hybrids_that_need_more_than_half_are_the_plain_rule(measure: str):
    segments, pairs, chances = noise(9)
    for count in (4, 5, 7):
        hybrid, plain = (
            choose(rule, count, pairs, segments, chances, np.random.default_rng(0)).tolist()
            for rule in (f"kcenter_{measure}", measure)
        )
        assert hybrid == plain


@pytest.mark.parametrize("measure", ["disagreement", "entropy"])
def test_hybrids_are_k_center_by_force_within_the_half(measure: str):
    of = {"disagreement": disagreement, "entropy": entropy}[measure]
    for seed in range(10):
        segments, pairs, chances = noise(21, seed)
        half = np.argsort(-of(chances))[:10]
        points = pair_features(pairs, segments)[half]
        expected = sorted(half[greedy_by_force(points, 0, 4)].tolist())
        rng = np.random.default_rng(seed)
        assert choose(f"kcenter_{measure}", 4, pairs, segments, chances, rng).tolist() == expected
