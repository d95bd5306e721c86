"""Definitions of the terms of a report; ``docs/statistics.md`` gives formulas and sources."""

from __future__ import annotations

from sailctl.analysis.contrasts import ALPHA, POWER
from sailctl.analysis.evidence import FINAL_EVALUATIONS
from sailctl.analysis.scores import COLLAPSE, GAIN
from sailctl.analysis.statistics import LEVEL, SEEDS_OF_A_MEAN, SEEDS_OF_A_SHARE

GLOSSARY = {
    "arm": "All runs of one configuration, over tasks and seeds. One arm is the baseline.",
    "score": "Return normalised per task (see the table of scales), so that tasks can be averaged.",
    "final return": (
        f"Mean true return at the last {FINAL_EVALUATIONS} evaluations of a window of env steps. The window "
        "is fixed in advance and equal for all arms; the best evaluation is never selected."
    ),
    "final score": "Mean of the normalised final returns over runs, then over tasks, including failed runs.",
    "IQM": (
        "Interquartile mean: the mean of the middle half of the final scores of all runs and tasks, which is "
        "robust to outliers. Descriptive, without interval or test."
    ),
    "area under the curve": "Mean score over the course of training; high if an arm learns early.",
    "env steps to threshold": (
        "Median env steps until a run first reaches the threshold after training began (Kaplan-Meier "
        "estimate, with the other runs censored); ∞ if fewer than half of the runs do. It has no interval."
    ),
    "failed": "Runs that did not finish or collapsed. They are included in every denominator.",
    "collapsed": (
        f"Finished runs that kept less than {COLLAPSE:.0%} of their largest gain, if this gain was at least "
        f"{GAIN:g} in score."
    ),
    "KL to reference": (
        "Mean KL(reference || policy) per state in nats before the last evaluations: the divergence of the "
        "policy from its reference."
    ),
    f"{LEVEL:.0%} interval": (
        "Confidence interval: in repeated experiments it contains the true value with probability "
        f"{LEVEL:.0%}. Means have one from {SEEDS_OF_A_MEAN} seeds per task, probabilities of improvement "
        f"and profiles from {SEEDS_OF_A_SHARE}."
    ),
    "difference": "Mean of the arm minus mean of the baseline. Interval, test and verdict refer to it.",
    "P(improvement)": (
        "Probability that a run of the arm is better than a run of the baseline; a tie counts 1/2."
    ),
    "Hedges' g": "Difference of means in pooled standard deviations between runs, corrected for few runs.",
    "paired difference": "Mean difference between two runs with the same seed.",
    "p, p (Holm)": (
        "p-value of a two-sided permutation test of the difference; adjusted by Holm's method, so that the "
        f"probability of any false positive in a family of contrasts is at most {ALPHA:.0%}."
    ),
    "better, worse, undecided": (
        f"A difference is decided if p (Holm) is below {ALPHA:g} and the interval excludes 0. Undecided does "
        "not mean equal."
    ),
    "power, seeds needed": (
        "Probability that this number of seeds detects a difference that was fixed in advance, given the "
        f"observed spread between runs; and the number of seeds with a power of {POWER:.0%}."
    ),
    "dispersion across runs": "Interquartile range over runs per evaluation, averaged over evaluations.",
    "dispersion within a run": "Interquartile range of the changes of a curve between evaluations.",
    "short-term risk": "Mean of the lowest 5% of the changes between evaluations: the size of sudden drops.",
    "long-term risk": "Mean of the largest 5% of the drops below the best score so far.",
    "final drop from the best": "Best score of a run minus its last score.",
    "risk across runs": "Mean final score of the worst 5% of runs.",
    "performance profile": "Share of runs with a final score above each threshold.",
}
