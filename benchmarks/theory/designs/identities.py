"""The expectation of the estimator with c = 1 is the gradient of the mixture; what own labels leave of it."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from benchmarks.record import Row
from benchmarks.theory.designs.data import mixtures
from benchmarks.theory.designs.mixture import DESIGNS
from benchmarks.theory.estimator import compare, expected_loss

IDENTITIES = 200
"""Random problems on which the identities are checked."""
EXTRAS = {"plain": (0.0, 0.0), "RevKL": (0.3, 0.0), "robust": (0.0, 0.1), "RevKL and robust": (0.3, 0.1)}
"""(gamma, rho)."""


def identity_rows() -> list[Row]:
    """Every design and extra at random parameters, w = 0.4."""
    mixture = mixtures(IDENTITIES, beta=0.7)
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(IDENTITIES, 4)))
    w = 0.4
    rows: list[Row] = []
    for design, (extra, (gamma, rho)) in itertools.product(DESIGNS, EXTRAS.items()):
        truth = mixture.true_gradient(design, theta, w, gamma, rho)
        for c in (0.0, 0.3, 1.0):
            row = compare(mixture.estimated(design, theta, w, c, gamma, rho), truth)
            rows.append({"design": design, "extra": extra, "gamma": gamma, "rho": rho, "w": w, "c": c, **row})
    return rows


def own_label_rows() -> list[Row]:
    """T1 under the policy's own labels, and the objective of DDP against an entropy."""
    mixture = mixtures(IDENTITIES, beta=0.7)
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(IDENTITIES, 4)))
    rows: list[Row] = [
        {
            "identity": f"T1 of {design}: largest |mean|",
            "error": float(mixture.design_ascent(design, theta, 0.0).abs().max()),
        }
        for design in ("DDP", "DPP")
    ]
    certain = mixture.problem.score(theta).sigmoid()
    entropy = torch.special.entr(certain) + torch.special.entr(1 - certain)
    loss = expected_loss(mixture.problem, theta, mixture.pairs, certain, c=0.0, responses=False)
    difference = loss - (mixture.pairs * entropy).sum()
    rows.append({"identity": "DDP's objective + entropy of sigma(h)", "error": float(difference.abs())})
    return rows
