"""The bias of T1 + c T2 in control: against the number of quadrature nodes, and at random policies."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.record import Row
from benchmarks.theory.control import POLICY, REFERENCE, Control, flat_gradient, linear_policy
from benchmarks.theory.estimator import compare

NODES = (3, 4, 6, 8, 12, 16, 20, 24, 32)
"""Quadrature nodes for each action."""


def quadrature_rows() -> list[Row]:
    """The distance of T1 + c T2 from grad J as nodes are added, for segments of two steps."""
    policy, reference = linear_policy(POLICY), linear_policy(REFERENCE)
    rows: list[Row] = []
    for nodes in NODES:
        control = Control(segment=2, judged=2, nodes=nodes)
        truth = control.true_gradient(policy, reference)[None]
        for c in (0.0, 0.3, 1.0):
            row = compare(control.estimated(policy, reference, c)[None], truth)
            rows.append({"part": "quadrature", "setting": f"H=2 L=2 nodes={nodes}", "c": c, **row})
    return rows


POLICIES = 20
"""Random policies at which the biases in control are measured."""
LENGTHS = ((1, 1, 12), (1, 2, 12), (1, 3, 7), (2, 2, 12), (2, 3, 7))
"""H (steps of the segment), L (steps that the teacher judges) and quadrature nodes."""


def control_bias_rows() -> list[Row]:
    """The bias at random policies, also for a teacher that judges more steps than the segment has.

    At c = 1 and L = H the only error is that of the quadrature.
    """
    rng = np.random.default_rng(1)
    reference = linear_policy(REFERENCE)
    policies = [linear_policy((REFERENCE + 0.5 * rng.normal(size=3)).tolist()) for _ in range(POLICIES)]
    rows: list[Row] = []
    for segment, judged, nodes in LENGTHS:
        control = Control(segment, judged, nodes)
        truth = torch.stack([control.true_gradient(policy, reference) for policy in policies])
        for c in (0.0, 0.3, 1.0):
            estimates = torch.stack([control.estimated(policy, reference, c) for policy in policies])
            row = compare(estimates, truth)
            rows.append({"part": "control", "setting": f"H={segment} L={judged}", "c": c, **row})
    control = Control(segment=2, judged=2, nodes=12)
    direct, whole = (
        torch.stack([flat_gradient(control.visited_kl(p, reference, through), p) for p in policies])
        for through in (False, True)
    )
    return [*rows, {"part": "control", "setting": "KL over visited states", **compare(direct, whole)}]
