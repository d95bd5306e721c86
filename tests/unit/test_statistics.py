import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from sailctl.analysis import statistics as st
from sailctl.core.types import UserError


def rng():
    return np.random.default_rng(0)


def with_moments(mean, sd, n):
    """n scores, n even, of exactly that mean and standard deviation (n - 1 in the denominator)."""
    signs = np.tile([1.0, -1.0], n // 2)
    return mean + signs * sd * math.sqrt((n - 1) / n)


# Point estimates and means


def test_iqm_by_hand():
    assert st.iqm(np.array([100.0, 1, 2, 3, -50, 4, 5, 6])) == (2 + 3 + 4 + 5) / 4
    assert st.iqm(np.array([7.0, 1, 4])) == 4
    assert st.iqm(np.array([10.0, 1, 2, 3, 4])) == 3


@pytest.mark.parametrize("n", [1, 3, 4, 5, 10, 11, 23])
def test_iqm_is_the_trimmed_mean_of_scipy_on_either_axis(n):
    scores = rng().normal(size=(6, n))
    np.testing.assert_allclose(st.iqm(scores), stats.trim_mean(scores, 0.25, axis=1))
    np.testing.assert_allclose(st.iqm(scores.T, axis=0), stats.trim_mean(scores, 0.25, axis=1))


def test_mean_of_one_task_is_the_t_interval():
    """Student's (1908) sleep data: mean 1.58, interval 0.70 to 2.46."""
    extra = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    found = st.mean([extra])
    assert (found.value, found.low, found.high) == pytest.approx((1.58, 0.7001142, 2.4598858), abs=1e-6)


def test_mean_of_two_tasks_has_welchs_degrees_of_freedom():
    """With two tasks, half the Welch interval of the first and the second turned round."""
    one, other = rng().normal(1, 1, 8), rng().normal(0, 4, 5)
    found = st.mean([one, other])
    welch = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((welch.low / 2, welch.high / 2))


def test_difference_of_one_task_is_welchs_interval():
    ours, theirs = rng().normal(1, 1, 8), rng().normal(0, 4, 5)
    found = st.difference([ours], [theirs])
    welch = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))


def test_difference_weighs_tasks_alike_and_knows_that_they_differ():
    ours, theirs = [np.array([1.0, 2, 3]), np.full(9, 100.0)], [np.array([1.0, 2, 3]), np.full(4, 90.0)]
    found = st.difference(ours, theirs)
    assert found.value == 5
    one = st.difference(ours[:1], theirs[:1])
    assert found.high - found.value == pytest.approx((one.high - one.value) / 2), "the tasks lie far apart"


def test_difference_turns_its_sign_with_its_arms():
    ours, theirs = rng().normal(1, 1, (2, 3, 10))
    one, other = st.difference(ours, theirs), st.difference(theirs, ours)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_means_of_less_than_three_seeds_on_a_task_have_no_interval():
    three, two = np.array([1.0, 2, 3]), np.array([1.0, 2])
    for found in (st.mean([three, two]), st.mean([two]), st.difference([three], [two])):
        assert math.isfinite(found.value)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert st.mean([np.ones(4)]) == st.Estimate(1, 1, 1)


# Probabilities


def test_probability_of_improvement_is_u_over_nm_with_half_a_tie():
    ours, theirs = [np.array([3.0, 5, 5])], [np.array([1.0, 5, 4, 2])]
    assert st.probability_of_improvement(ours, theirs).value == (2 + 3.5 + 3.5) / 12
    u = stats.mannwhitneyu(ours[0], theirs[0]).statistic
    assert st.probability_of_improvement(ours, theirs).value == pytest.approx(u / 12)


def test_probability_of_improvement_weighs_tasks_alike():
    ours, theirs = [np.full(2, 1.0), np.full(50, 0.0)], [np.zeros(2), np.ones(50)]
    assert st.probability_of_improvement(ours, theirs).value == 0.5


def test_probability_of_improvement_of_all_wins_is_not_certain():
    ours, theirs = [np.arange(10.0) + 100], [np.arange(10.0)]
    found = st.probability_of_improvement(ours, theirs)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)
    lost = st.probability_of_improvement(theirs, ours)
    assert (lost.value, lost.low) == (0, 0)
    assert lost.high == pytest.approx(1 - found.low)


def test_probability_of_improvement_of_all_wins_on_three_tasks_has_some_width():
    found = st.probability_of_improvement([np.arange(7.0) + 100] * 3, [np.arange(7.0)] * 3)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(21 / (21 + 1.959964**2), abs=1e-6)


def test_probability_of_improvement_has_the_variance_of_the_bootstrap():
    ours, theirs = rng().normal(0.5, 1, 30), rng().normal(0, 1, 30)[::-1]
    wins = (ours[:, None] > theirs[None, :]).astype(float)
    generator = np.random.default_rng(7)
    drawn = [
        wins[generator.integers(0, 30, 30)][:, generator.integers(0, 30, 30)].mean() for _ in range(4_000)
    ]
    found = st.probability_of_improvement([ours], [theirs])
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.12)


def test_profile_by_hand():
    strata = [np.array([0.0, 1, 2, 3, 3]), np.array([2.0, 4, 6, 8, 8])]
    found = st.performance_profile(strata, np.array([-1.0, 2, 5, 8]))
    np.testing.assert_allclose(found[:, 0], [1, 6 / 10, 3 / 10, 0])
    few = st.performance_profile([x[1:] for x in strata], np.array([-1.0, 2, 5, 8]))
    assert np.isnan(few[:, 1:]).all()
    assert np.all(found[:, 1] <= found[:, 0])
    assert np.all(found[:, 2] >= found[:, 0])
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[0, 1] < 1
    assert found[3, 2] > 0


def test_profile_of_one_task_is_wilsons_interval():
    found = st.performance_profile([np.arange(10.0)], np.array([6.5]))[0]
    wilson = st.proportion(3, 10)
    np.testing.assert_allclose(found, [0.3, wilson.low, wilson.high])


def test_profile_knows_that_tasks_differ():
    """A share that is a matter of the task alone varies less than a share of runs that are all alike."""
    half = [np.r_[np.zeros(5), np.ones(5)]] * 8
    apart = [np.r_[np.zeros(9), 1.0]] * 4 + [np.r_[0.0, np.ones(9)]] * 4
    wide, narrow = (st.performance_profile(x, np.array([0.5]))[0] for x in (half, apart))
    assert wide[0] == narrow[0] == 0.5
    assert narrow[2] - narrow[1] < 0.75 * (wide[2] - wide[1])


@pytest.mark.parametrize("count", [0, 1, 4, 10])
def test_proportion_is_wilsons_interval(count):
    expected = stats.binomtest(count, 10).proportion_ci(method="wilson")
    found = st.proportion(count, 10)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.low <= found.value == count / 10 <= found.high


def test_proportion_of_nothing_is_refused():
    with pytest.raises(UserError, match="0 out of 0"):
        st.proportion(0, 0)


# Differences in standard deviations


def test_hedges_g_of_a_published_example():
    """Borenstein et al. (2009), chapter 4: means 103 and 100, sd 5.5 and 4.5, n = 50: g = 0.5924."""
    ours, theirs = with_moments(103, 5.5, 50), with_moments(100, 4.5, 50)
    assert st.hedges_g([ours], [theirs]) == pytest.approx(0.5924, abs=5e-5)


def test_hedges_g_without_spread_or_second_seed_is_undefined():
    for ours, theirs in ((np.ones(3), np.zeros(3)), (np.ones(1), np.array([1.0, 2.0]))):
        assert math.isnan(st.hedges_g([ours], [theirs]))


def test_hedges_g_over_tasks_is_the_mean_of_those_of_the_tasks():
    ours, theirs = list(rng().normal(1, 1, (2, 10))), list(rng().normal(0, 1, (2, 10)))
    single = [st.hedges_g([x], [y]) for x, y in zip(ours, theirs, strict=True)]
    assert st.hedges_g(ours, theirs) == pytest.approx(np.mean(single))


# Tests


def test_permutation_test_by_enumeration():
    ours, theirs = np.array([5.0, 6, 7]), np.array([1.0, 2, 4])
    assert st.permutation_test([ours], [theirs], rng(), alternative="greater") == 1 / 20
    assert st.permutation_test([ours], [theirs], rng()) == 2 / 20
    assert st.permutation_test([ours], [theirs], rng(), alternative="less") == 1


def test_permutation_test_enumerates_tasks_jointly():
    ours, theirs = [np.array([5.0, 6, 7])] * 2, [np.array([1.0, 2, 4])] * 2
    assert st.permutation_test(ours, theirs, rng(), alternative="greater") == 1 / 400


def test_permutation_test_exchanges_within_tasks_only():
    """The tasks lie far apart, the arms do not differ within either."""
    arm = [np.array([0.0, 1, 2]), np.array([1000.0, 1001])]
    assert st.permutation_test(arm, arm, rng()) == 1


def test_drawn_permutations_agree_with_all_of_them():
    ours, theirs = [rng().normal(0.8, 1, 6)], [rng().normal(0, 2, 12)[6:]]
    every = st.permutation_test(ours, theirs, rng(), math.comb(12, 6))
    assert st.permutation_test(ours, theirs, rng(), math.comb(12, 6) - 1) == pytest.approx(every, abs=0.05)


def test_permutation_test_never_returns_zero():
    ours, theirs = [np.arange(20.0) + 100], [np.arange(20.0)]
    assert st.permutation_test(ours, theirs, rng(), 999) == 1 / 1000


def test_permutation_test_of_scores_that_are_all_the_same():
    assert st.permutation_test([np.ones(4)], [np.ones(4)], rng()) == 1
    assert st.permutation_test([np.ones(4)], [np.zeros(4)], rng()) == pytest.approx(2 / 70)


def test_permutation_test_of_single_seeds():
    assert st.permutation_test([np.array([1.0])], [np.array([0.0])], rng()) == 1


def test_permutation_test_keeps_its_level_at_unequal_variances():
    """4 wide scores against 16 narrow ones: the plain difference of means rejects in more than a quarter."""
    generator = rng()
    p = [
        st.permutation_test([generator.normal(0, 4, 4)], [generator.normal(0, 1, 16)], generator, 199)
        for _ in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.12


def test_holm_by_hand():
    np.testing.assert_allclose(st.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(st.holm(np.array([0.9, 0.6])), [1, 1])
    assert len(st.holm(np.array([]))) == 0


# Times

REMISSION = np.array([6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35], float)
RELAPSED = np.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0], bool)


def test_median_of_the_leukaemia_data():
    """6-MP arm of Freireich et al. (1963): the survival falls to 0.4482 at 23, as textbooks print it."""
    assert st.time_to_threshold(REMISSION, RELAPSED) == 23


def test_median_time_that_is_not_reached():
    assert st.time_to_threshold(np.full(10, 5.0), np.arange(10) < 2) == math.inf
    assert st.time_to_threshold(np.arange(1.0, 11), np.zeros(10, bool)) == math.inf


def test_median_time_without_censoring_is_an_order_statistic():
    assert st.time_to_threshold(np.arange(1.0, 12), np.ones(11, bool)) == 6
    assert st.time_to_threshold(np.array([3.0]), np.array([True])) == 3


# Curves


def test_area_under_curve_is_a_mean():
    assert st.area_under_curve(np.array([0.0, 1, 3]), np.array([2.0, 2, 2])) == 2
    assert st.area_under_curve(np.array([0.0, 1, 3]), np.array([0.0, 2, 4])) == pytest.approx((1 + 6) / 3)
    assert st.area_under_curve(np.array([5.0]), np.array([7.0])) == 7


def test_dispersion_by_hand():
    assert st.dispersion_across(np.array([[0.0, 0], [1, 10], [2, 20], [3, 30], [4, 40]])) == (2 + 20) / 2
    assert st.dispersion_within(np.array([0.0, 1, 3, 6, 10, 15])) == 2
    assert st.dispersion_within(np.arange(9.0)) == 0


def test_risks_by_hand():
    curve = np.array([0.0, 5, 3, 8, 1, 9])
    np.testing.assert_array_equal(st.drawdown(curve), [0, 0, 2, 0, 7, 0])
    assert st.short_term_risk(curve) == -7
    assert st.long_term_risk(curve) == 7
    assert st.risk_across(np.arange(20.0)) == 0
    assert st.risk_across(np.arange(21.0)) == 0.5
    assert st.risk_across(np.arange(41.0)) == 1


def test_stability_of_a_single_evaluation():
    assert math.isnan(st.short_term_risk(np.ones(1)))
    assert math.isnan(st.dispersion_within(np.ones(1)))
    assert st.long_term_risk(np.ones(1)) == 0


# Power


def arms_apart(sd, n):
    """Two arms of n scores on one task, both of that standard deviation."""
    return [with_moments(5, sd, n)], [with_moments(0, sd, n)]


def test_seeds_needed_for_a_published_effect():
    """Colas et al. (2018)'s kind of effect: d = 0.872 needs 22 seeds an arm for a power of 80%."""
    arms = arms_apart(1, 4)
    assert [st.seeds_needed(d, *arms) for d in (0.872, 0.5, 0.8)] == [22, 64, 26]
    assert st.power(0.872, *arms, seeds=22) > 0.8 > st.power(0.872, *arms, seeds=21)


def test_power_is_for_the_effect_that_is_named_and_not_for_the_one_found():
    ours, theirs = [rng().normal(size=5)], [rng().normal(size=(2, 5))[1]]
    moved = [ours[0] + 100]
    assert st.power(0.5, moved, theirs) == pytest.approx(st.power(0.5, ours, theirs))
    assert st.power(1.0, ours, theirs) > st.power(0.5, ours, theirs)


def test_power_over_tasks_is_that_of_their_mean():
    """Eight tasks with a spread of 1 each are, for a mean, one task with eight times the seeds."""
    ours, theirs = arms_apart(1, 4)
    assert st.power(0.5, ours * 8, theirs * 8, seeds=8) == pytest.approx(
        st.power(0.5, ours, theirs, seeds=64), abs=0.01
    )


def test_power_is_the_level_without_an_effect_and_grows_with_seeds():
    arms = arms_apart(1, 4)
    assert st.power(0.0, *arms, seeds=7) == pytest.approx(0.05, abs=1e-3)
    assert st.power(-1.0, *arms) == st.power(1.0, *arms)
    assert all(a < b for a, b in pairwise(st.power(0.7, *arms, seeds=n) for n in range(2, 30)))
    assert st.power(1e6, *arms) == pytest.approx(1)


def test_power_agrees_with_the_noncentral_t():
    critical = stats.t.ppf(0.975, 18)
    expected = stats.nct.sf(critical, 18, math.sqrt(5)) + stats.nct.cdf(-critical, 18, math.sqrt(5))
    assert st.power(1.0, *arms_apart(1, 10)) == pytest.approx(expected, abs=1e-4)


def test_power_without_a_spread_is_unknown():
    assert math.isnan(st.power(1.0, [np.ones(3)], [np.zeros(3)]))
    assert math.isnan(st.power(1.0, [np.ones(1)], [np.array([0.0, 1])]))
    assert st.seeds_needed(1.0, [np.ones(3)], [np.zeros(3)]) is None


def test_seeds_needed_beyond_what_is_allowed():
    arms = arms_apart(1, 4)
    assert st.seeds_needed(0.0, *arms) is None
    assert st.seeds_needed(0.01, *arms, at_most=50) is None
    assert st.seeds_needed(math.nan, *arms) is None
    assert st.seeds_needed(50.0, *arms) == 2


# What is refused


@pytest.mark.parametrize(
    ("strata", "message"),
    [
        ([np.array([1.0, math.nan])], "floor"),
        ([np.array([1.0, math.inf])], "floor"),
        ([np.array([])], "no scores"),
        ([], "no scores"),
    ],
)
def test_scores_that_cannot_be_used(strata, message):
    with pytest.raises(UserError, match=message):
        st.mean(strata)


def test_arms_on_different_tasks():
    with pytest.raises(UserError, match="same tasks"):
        st.probability_of_improvement([np.ones(2)], [np.ones(2)] * 2)
    with pytest.raises(UserError, match="no times"):
        st.time_to_threshold(np.array([]), np.array([], dtype=bool))


# Coverage; benchmarks/coverage.py has the whole table


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 3), (8, 3), (1, 10), (8, 10)])
@pytest.mark.parametrize("spread", [1, 3])
def test_differences_are_covered_from_three_seeds_on(tasks: int, seeds: int, spread: int):
    """Over 1,500 samples one standard error is 0.006; tasks differ tenfold in spread."""
    generator, spreads = rng(), np.geomspace(1, 10, tasks)[:, None]
    held = [
        e.low <= 0 <= e.high
        for ours, theirs in generator.normal(size=(1_500, 2, tasks, seeds)) * spreads
        for e in [st.difference(list(spread * ours), list(theirs))]
    ]
    assert 0.93 <= np.mean(held) <= 0.98
