"""One sentence on each number of a report; ``docs/statistics.md`` gives the formulas and their sources."""

from __future__ import annotations

from sailctl.analysis.contrasts import ALPHA, POWER
from sailctl.analysis.evidence import FINAL_EVALUATIONS
from sailctl.analysis.scores import COLLAPSE, GAIN
from sailctl.analysis.statistics import LEVEL, SEEDS_OF_A_MEAN, SEEDS_OF_A_SHARE

GLOSSARY = {
    "arm": "The runs of one configuration, on every task and seed. One arm is the baseline.",
    "score": "Return on a scale of its own for each task (see the table of scales): tasks can be averaged.",
    "final return": (
        f"Mean true return of a run at the last {FINAL_EVALUATIONS} evaluations of a window of env steps "
        "that is the same for all arms: fixed in advance, never the best evaluation."
    ),
    "final score": (
        "Mean of the normalised final returns: over runs, then over tasks. A run that failed counts."
    ),
    "IQM": (
        "Interquartile mean of the same scores: the mean of the middle half of all runs and tasks, which "
        "single lucky or unlucky runs do not move. A description, without an interval or a test."
    ),
    "area under the curve": "Mean score over the whole of training: high for an arm that learns early.",
    "env steps to threshold": (
        "Median env steps until a run first reaches the threshold after training began, by Kaplan and Meier, "
        "so that runs that never do still count; ∞ where fewer than half do. It has no interval."
    ),
    "failed": "Runs that did not finish, or collapsed. They stay in every denominator.",
    "collapsed": (
        f"A finished run that kept less than {COLLAPSE:.0%} of the best that it had gained, if that was "
        f"at least {GAIN:g} in score."
    ),
    "KL to reference": (
        "Mean KL(reference to policy) per state before the last evaluations, in nats: how far the policy is "
        "from its reference."
    ),
    f"{LEVEL:.0%} interval": (
        f"Made by a rule whose intervals hold the true value in {LEVEL:.0%} of repeated experiments. A mean "
        f"has one from {SEEDS_OF_A_MEAN} seeds per task on, a probability of improvement and a profile from "
        f"{SEEDS_OF_A_SHARE} on."
    ),
    "difference": "The arm's mean minus the baseline's: interval, test and verdict are about this number.",
    "P(improvement)": (
        "Probability that a run of the arm is better than a run of the baseline; a tie counts a half."
    ),
    "Hedges' g": "Difference of means in units of the spread between runs, corrected for few runs.",
    "paired difference": "Mean difference between two runs that share a seed.",
    "p, p (Holm)": (
        "Two-sided permutation test of the difference; corrected so that a whole family of contrasts raises "
        f"a false alarm at most {ALPHA:.0%} of the time."
    ),
    "better, worse, undecided": (
        f"Decided where p (Holm) is below {ALPHA:g} and the interval excludes 0. Undecided does not "
        "mean equal."
    ),
    "power, seeds needed": (
        "Chance that so many seeds show a difference that was stated beforehand, with the spread between "
        f"runs that was found, and the seeds whose chance would be {POWER:.0%}."
    ),
    "dispersion across runs": "Interquartile range over runs at an evaluation, mean over evaluations.",
    "dispersion within a run": "Interquartile range of a curve's steps between evaluations: how it shakes.",
    "short-term risk": "Mean of the worst 5% of steps between evaluations: how far a curve drops at once.",
    "long-term risk": "Mean of the largest 5% of the drops below the best so far.",
    "final drop from the best": "Best score of a run minus its last.",
    "worst final scores": "Mean final score of the worst 5% of runs.",
    "performance profile": "Share of runs whose final score is above each threshold.",
}
