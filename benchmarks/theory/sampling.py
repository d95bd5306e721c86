"""Samples (prompt, preferred response, other response) of R policies at once, in numpy.

``Problem`` does the same for one policy in torch. Stochastic runs take many thousands of steps: this is fast.
"""

from __future__ import annotations

import numpy as np

from benchmarks.theory.problem import Problem
from sailctl.core.types import DoubleArray, IntArray


def log_policy(problem: Problem, theta: DoubleArray) -> DoubleArray:
    """(R, X, Y) log pi_theta for (R, d) parameters."""
    logits = np.tensordot(theta, problem.phi.numpy(), axes=(1, 2))
    logits -= logits.max(axis=2, keepdims=True)
    logp: DoubleArray = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    return logp


def answer_chances(problem: Problem, logp: DoubleArray) -> DoubleArray:
    """(R, X, Y, Y) probability that R policies draw (prompt, preferred, other response)."""
    probability = np.exp(logp)
    pairs = problem.prompt.numpy()[:, None, None] * probability[..., :, None] * probability[..., None, :]
    chances: DoubleArray = 2 * pairs * problem.chance.numpy()
    return chances


def draw_answers(problem: Problem, logp: DoubleArray, count: int, rng: np.random.Generator) -> IntArray:
    """(R, X, Y, Y) how often each of ``count`` samples was (prompt, preferred, other response)."""
    chances = answer_chances(problem, logp)
    flat = chances.reshape(len(logp), -1)
    drawn = rng.multinomial(count, flat / flat.sum(axis=1, keepdims=True))
    counts: IntArray = drawn.reshape(chances.shape)
    return counts
