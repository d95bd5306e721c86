"""Is T1 + c T2 the gradient of J? Exactly at c = 1, and how far from it elsewhere.

The estimator is the project's own ``sail_loss``, summed over every sample that it could draw. The truth is
independent of it: J itself, enumerated (responses) or integrated (actions), and differentiated.

1. Responses: 1000 random problems for each beta, at a random theta.
2. Fixed points: where the flow of T1 + c T2 stops, and what J and the true quality are there.
3. Control: two actions of the project's Gaussian policy in a linear system, integrated by Gauss-Hermite
   quadrature. J is differentiated through the dynamics, which the estimator never sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.record import arguments, write
from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, PINK, YELLOW, panels
from benchmarks.theory.problem import Problem, random_problem, stack
from sailctl.config import PolicyConfig
from sailctl.core.types import EnvSpec
from sailctl.objectives import kl_penalty, sail_loss
from sailctl.policies.policy import GaussianPolicy

PROBLEMS = 1000
BETAS = (0.1, 0.3, 1.0, 3.0)
COEFFICIENTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
SETTLED = 100
"""Problems whose flow is followed to its fixed point."""
NODES = (3, 4, 6, 8, 12, 16, 20, 24, 32)
"""Quadrature nodes for each action."""
POLICIES = 20
"""Random policies at which the biases in control are measured."""
STD = 0.5
"""Standard deviation of the actions in control."""

Row = dict[str, object]


# 1. Responses


def expected_loss(
    problem: Problem,
    theta: Tensor,
    weight: Tensor,
    chance: Tensor,
    *,
    c: float,
    responses: bool = True,
    own_labels: bool = False,
    rho: float = 0.0,
) -> Tensor:
    """Mean of ``sail_loss`` over every pair and label, all problems and parameters added up.

    Its gradient is the exact expectation of the estimator's, because what is drawn is drawn from ``weight``
    and ``chance``, and those are taken as constants.

    Args:
        problem: one problem, or several stacked.
        theta: (..., d) parameters.
        weight: (..., X, Y, Y) probability that a prompt and two responses are drawn.
        chance: (..., X, Y, Y) probability that the label drawn is +1.
        c: weight of T2 and T3.
        responses: as ``sail_loss`` has it, like the two after it.
        own_labels: see there.
        rho: see there.
    """
    logp, shape = problem.logp(theta), weight.shape

    def sides(values: Tensor) -> tuple[Tensor, Tensor]:
        first, second = values[..., :, None].expand(shape), values[..., None, :].expand(shape)
        return first.reshape(-1), second.reshape(-1)

    one, two = sides(logp)
    ref_one, ref_two = sides(problem.ref_logp)
    total = torch.zeros((), dtype=logp.dtype)
    for label, probability in ((1.0, chance), (-1.0, 1 - chance)):
        losses, _ = sail_loss(
            one,
            two,
            ref_one,
            ref_two,
            torch.full_like(one, label),
            beta=problem.beta,
            c=c,
            group=None,
            responses=responses,
            own_labels=own_labels,
            rho=rho,
        )
        total = total + (losses * (weight * probability).detach().reshape(-1)).sum()
    return total


def ascent(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """(..., d) minus the gradient of a scalar loss; each row of theta has a part of the loss to itself."""
    leaf = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    return -gradient


def estimated(problem: Problem, theta: Tensor, c: float) -> Tensor:
    """(..., d) expectation of T1 + c T2."""
    return ascent(
        lambda leaf: expected_loss(problem, leaf, problem.pairs(leaf).detach(), problem.chance, c=c), theta
    )


def true_gradient(problem: Problem, theta: Tensor) -> Tensor:
    """(..., d) gradient of the enumerated J."""
    return ascent(lambda leaf: -problem.objective(leaf).sum(), theta)


def compare(estimates: Tensor, truth: Tensor) -> Row:
    """How (N, d) estimates stand to (N, d) true gradients."""
    error = (estimates - truth).norm(dim=-1) / truth.norm(dim=-1)
    cosine = torch.cosine_similarity(estimates, truth, dim=-1)
    return {
        "points": len(truth),
        "relative_error_median": float(error.median()),
        "relative_error_max": float(error.max()),
        "cosine_q05": float(cosine.quantile(0.05)),
        "cosine_q25": float(cosine.quantile(0.25)),
        "cosine_median": float(cosine.median()),
        "share_downhill": float((cosine < 0).double().mean()),
    }


def response_rows() -> list[Row]:
    """The bias of T1 + c T2 over random problems, and over random points of them."""
    rows: list[Row] = []
    for beta in BETAS:
        problem = stack([random_problem(seed, beta=beta) for seed in range(PROBLEMS)])
        theta = torch.from_numpy(np.random.default_rng(0).normal(size=(PROBLEMS, problem.dimension)))
        truth = true_gradient(problem, theta)
        for c in COEFFICIENTS:
            row = compare(estimated(problem, theta, c), truth)
            rows.append({"part": "responses", "setting": f"beta={beta}", "c": c, **row})
    return rows


# 2. Fixed points


def settle(
    field: Callable[[Tensor], Tensor], start: Tensor, steps: int = 400, tolerance: float = 1e-11
) -> tuple[Tensor, Tensor]:
    """Follow d theta / dt = field(theta) from (N, d) starts until it stops.

    Linearly implicit Euler steps, which grow as the field shrinks (pseudo-transient continuation) and are
    at most 1/2 long, so that the flow's own fixed point is reached and not just any root.

    Returns:
        (N, d) where it stopped, and (N,) the largest real part of the eigenvalues of the field's Jacobian
        there: the point attracts the flow where it is negative.
    """
    theta, value = start, field(start)
    pace = torch.full(start.shape[:1], 0.5, dtype=start.dtype)
    eye = torch.eye(start.shape[-1], dtype=start.dtype)
    for _ in range(steps):
        size = value.norm(dim=-1)
        if size.max() < tolerance:
            break
        system = eye / pace[:, None, None] - jacobian(field, theta)
        step = torch.linalg.solve(system, value)
        theta = theta + step / (2 * step.norm(dim=-1, keepdim=True)).clamp(min=1.0)
        value = field(theta)
        pace = pace * (size / value.norm(dim=-1).clamp(min=tolerance)).clamp(0.5, 2.0)
    return theta, torch.linalg.eigvals(jacobian(field, theta)).real.amax(dim=-1)


def jacobian(field: Callable[[Tensor], Tensor], theta: Tensor, step: float = 1e-5) -> Tensor:
    """(N, d, d) derivative of a field at (N, d) points, by central differences."""
    axes = step * torch.eye(theta.shape[-1], dtype=theta.dtype)
    return torch.stack([(field(theta + e) - field(theta - e)) / (2 * step) for e in axes], dim=-1)


def reference_parameters(problem: Problem) -> Tensor:
    """(d,) theta of the reference, which is log-linear too."""
    centred = (problem.phi - problem.phi.mean(dim=1, keepdim=True)).reshape(-1, problem.dimension)
    target = (problem.ref_logp - problem.ref_logp.mean(dim=1, keepdim=True)).reshape(-1, 1)
    solution: Tensor = torch.linalg.lstsq(centred, target).solution
    return solution[:, 0]


def well_conditioned(prompts: int, beta: float) -> list[Problem]:
    """The first problems whose features all matter at the reference: Fisher information above 0.1."""
    found: list[Problem] = []
    seed = 0
    while len(found) < SETTLED:
        problem = random_problem(seed, prompts=prompts, beta=beta, quality=1.0)
        if torch.linalg.eigvalsh(problem.fisher(reference_parameters(problem)))[0] > 0.1:
            found.append(problem)
        seed += 1
    return found


def alignment_value(problem: Problem, theta: Tensor) -> Tensor:
    """(...) E[quality] - beta KL(pi_theta || pi_ref): what alignment from human feedback maximises."""
    return problem.mean_quality(theta) - problem.beta * problem.kl(theta, "kl_pi_ref")


def best_alignment_value(problem: Problem) -> Tensor:
    """(...) its maximum over all policies: beta E_x[log E_ref exp(quality / beta)]."""
    best = torch.logsumexp(problem.ref_logp + problem.quality() / problem.beta, dim=-1)
    return problem.beta * (problem.prompt * best).sum(dim=-1)


def chance_of_worst(problem: Problem, theta: Tensor) -> Tensor:
    """(...) probability that pi_theta gives the response of the lowest quality."""
    worst = problem.quality().argmin(dim=-1, keepdim=True)
    probability = problem.logp(theta).exp().gather(-1, worst)[..., 0]
    return (problem.prompt * probability).sum(dim=-1)


def fixed_point_rows() -> list[Row]:
    """J, its gradient and the true quality where the flow of T1 + c T2 stops.

    With one prompt and as many features as responses less one, every policy can be reached ("every policy");
    with three prompts and three features few can ("few policies").
    """
    rows: list[Row] = []
    for name, prompts in (("every policy", 1), ("few policies", 3)):
        problems = well_conditioned(prompts, beta=1.0)
        problem = stack(problems)
        start = torch.stack([reference_parameters(each) for each in problems])
        for c in COEFFICIENTS:
            theta, slowest = settle(partial(estimated, problem, c=c), start)
            reached, before = alignment_value(problem, theta), alignment_value(problem, start)
            rows.append(
                {
                    "setting": name,
                    "c": c,
                    "points": len(problems),
                    "field_max": float(estimated(problem, theta, c).norm(dim=-1).max()),
                    "slowest_rate_max": float(slowest.max()),
                    "gradient_of_J_median": float(true_gradient(problem, theta).norm(dim=-1).median()),
                    "J": float(problem.objective(theta).mean()),
                    "quality_gain": float((problem.mean_quality(theta) - problem.mean_quality(start)).mean()),
                    "win_rate": float(problem.win_rate(theta).mean()),
                    "worst_response": float(chance_of_worst(problem, theta).mean()),
                    "worst_response_at_start": float(chance_of_worst(problem, start).mean()),
                    "alignment_gain": float((reached - before).mean()),
                    "alignment_short_of_best": float((best_alignment_value(problem) - reached).mean()),
                }
            )
    return rows


# 3. Control


@dataclass(frozen=True)
class Control:
    """A cart with friction, pushed towards the origin; the teacher compares undiscounted quadratic costs.

    State (position, velocity), one action. All integrals over actions are Gauss-Hermite sums.
    """

    segment: int
    """H, steps whose log-probabilities count."""
    judged: int
    """L >= H, steps that the teacher compares."""
    nodes: int
    """Quadrature nodes for each action."""
    beta: float = 0.5
    """Scale of the pair score."""

    DYNAMICS = torch.tensor([[1.0, 0.5], [0.0, 0.8]], dtype=torch.float64)
    PUSH = torch.tensor([0.1, 0.5], dtype=torch.float64)
    STARTS = torch.tensor([[1.0, 0.0], [-0.5, 0.8]], dtype=torch.float64)
    """Start states, each as likely as the other."""

    def noise(self) -> tuple[Tensor, Tensor]:
        """(T, L) standard normal nodes of every trajectory and (T,) their weights, T = nodes ** L."""
        points, mass = np.polynomial.hermite_e.hermegauss(self.nodes)
        grids = np.meshgrid(*[points] * self.judged, indexing="ij")
        masses = np.meshgrid(*[mass / mass.sum()] * self.judged, indexing="ij")
        flat = np.stack(grids, axis=-1).reshape(-1, self.judged)
        return torch.from_numpy(flat), torch.from_numpy(np.prod(masses, axis=0).ravel())

    def rollout(self, policy: GaussianPolicy, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States (T, L, 2), actions (T, L, 1) and returns (T,), differentiable in the policy's parameters."""
        noise, _ = self.noise()
        state = start.expand(len(noise), 2)
        states, actions, returns = [], [], torch.zeros(len(noise), dtype=torch.float64)
        for t in range(self.judged):
            action = policy.mean(policy.features(state)) + policy.log_std.exp() * noise[:, t, None]
            states.append(state)
            actions.append(action)
            state = state @ self.DYNAMICS.T + action * self.PUSH
            returns = returns - state.square().sum(-1) - 0.1 * action.square().sum(-1)
        return torch.stack(states, dim=1), torch.stack(actions, dim=1), returns

    def log_ratio(
        self, policy: GaussianPolicy, reference: GaussianPolicy, states: Tensor, actions: Tensor
    ) -> Tensor:
        """(T,) log pi_theta / pi_ref of the first H steps, of two Gaussians of one standard deviation."""
        states, actions = states[:, : self.segment], actions[:, : self.segment]
        ours, theirs = (actions - policy.mean(states)).square(), (actions - reference.mean(states)).square()
        return ((theirs - ours) / (2 * torch.exp(2 * policy.log_std))).sum(dim=(1, 2))

    def objective(self, policy: GaussianPolicy, reference: GaussianPolicy) -> Tensor:
        """J, every pair of trajectories from each start."""
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        for start in self.STARTS:
            states, actions, returns = self.rollout(policy, start)
            ratio = self.beta * self.log_ratio(policy, reference, states, actions)
            h = ratio[:, None] - ratio[None, :]
            chance = torch.sigmoid(returns[:, None] - returns[None, :])
            value = chance * logsigmoid(h) + (1 - chance) * logsigmoid(-h)
            total = total + weight @ value @ weight / len(self.STARTS)
        return total

    def true_gradient(self, policy: GaussianPolicy, reference: GaussianPolicy) -> Tensor:
        """(d,) gradient of J through actions, dynamics, labels and scores."""
        return flat_gradient(self.objective(policy, reference), policy)

    def estimated(self, policy: GaussianPolicy, reference: GaussianPolicy, c: float) -> Tensor:
        """(d,) expectation of T1 + c T2 from ``sail_loss``, given states, actions and labels."""
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        count = len(weight)
        rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
        for start in self.STARTS:
            with torch.no_grad():
                states, actions, returns = self.rollout(policy, start)
                chance = torch.sigmoid(returns[rows] - returns[columns])
                states, actions = states[:, : self.segment], actions[:, : self.segment]
                ref_logp = reference.log_prob(reference.mean(reference.features(states)), actions).sum(-1)
            logp = policy.log_prob(policy.mean(policy.features(states)), actions).sum(-1)
            for label, probability in ((1.0, chance), (-1.0, 1 - chance)):
                losses, _ = sail_loss(
                    logp[rows],
                    logp[columns],
                    ref_logp[rows],
                    ref_logp[columns],
                    torch.full_like(chance, label),
                    beta=self.beta,
                    c=c,
                    group=None,
                )
                total = total - losses @ (weight[rows] * weight[columns] * probability) / len(self.STARTS)
        return flat_gradient(total, policy)

    def mean_return(self, policy: GaussianPolicy) -> Tensor:
        """E[return] of the L judged steps."""
        _, weight = self.noise()
        returns = [self.rollout(policy, start)[2] for start in self.STARTS]
        return torch.stack(returns).mean(dim=0) @ weight

    def segment_kl(self, policy: GaussianPolicy, reference: GaussianPolicy) -> Tensor:
        """E[KL(pi_theta || pi_ref)] of whole segments."""
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        for start in self.STARTS:
            states, actions, _ = self.rollout(policy, start)
            total = total + weight @ self.log_ratio(policy, reference, states, actions) / len(self.STARTS)
        return total

    def visited_kl(self, policy: GaussianPolicy, reference: GaussianPolicy, through_states: bool) -> Tensor:
        """E[KL(pi_ref || pi_theta)] over the states of the first H steps.

        Without ``through_states`` the states count as given, as they do for the learner.
        """
        _, weight = self.noise()
        total = torch.zeros((), dtype=torch.float64)
        for start in self.STARTS:
            states = self.rollout(policy, start)[0][:, : self.segment]
            states = states if through_states else states.detach()
            kl = kl_penalty(
                "kl_ref_pi", policy.mean(states), policy.log_std, reference.mean(states), reference.log_std
            )
            total = total + weight @ kl.mean(dim=1) / len(self.STARTS)
        return total


def flat_gradient(value: Tensor, policy: GaussianPolicy) -> Tensor:
    """(d,) gradient of a scalar in the policy's trained parameters."""
    return parameters_to_vector(torch.autograd.grad(value, list(policy.net.parameters())))


def linear_policy(theta: Sequence[float] | Tensor) -> GaussianPolicy:
    """The project's log-linear policy: mean = theta . (position, velocity, 1)."""
    config = PolicyConfig(
        kind="linear", hidden=[], features=0, initial_std=STD, learn_std=False, normalise=False
    )
    spec = EnvSpec("cart", 2, 1, np.array([-1.0]), np.array([1.0]), horizon=3, dt=0.5)
    policy = GaussianPolicy(config, spec, np.random.default_rng(0)).double()
    vector_to_parameters(torch.as_tensor(theta, dtype=torch.float64), policy.net.parameters())
    return policy


REFERENCE = (-0.4, -0.2, 0.1)
POLICY = (-0.8, -0.6, -0.1)
"""The policy at which the quadrature is refined."""


def quadrature_rows() -> list[Row]:
    """The distance of T1 + c T2 from grad J as the integrals are refined: two steps, of which both count."""
    policy, reference = linear_policy(POLICY), linear_policy(REFERENCE)
    rows: list[Row] = []
    for nodes in NODES:
        control = Control(segment=2, judged=2, nodes=nodes)
        truth = control.true_gradient(policy, reference)[None]
        for c in (0.0, 0.3, 1.0):
            row = compare(control.estimated(policy, reference, c)[None], truth)
            rows.append({"part": "quadrature", "setting": f"H=2 L=2 nodes={nodes}", "c": c, **row})
    return rows


LENGTHS = ((1, 1, 12), (1, 2, 12), (1, 3, 7), (2, 2, 12), (2, 3, 7))
"""H, L and nodes: what is judged beside what counts."""


def control_bias_rows() -> list[Row]:
    """The bias at random policies, for c and for a teacher that judges on after the segment's end.

    The error at c = 1 and L = H is that of the quadrature alone.
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


def control_fixed_point_rows() -> list[Row]:
    """J and the true return (quality) where the flow of T1 + c T2 stops, starting at the reference."""
    control, reference = Control(segment=2, judged=2, nodes=8), linear_policy(REFERENCE)
    start = torch.tensor([REFERENCE], dtype=torch.float64)
    rows: list[Row] = []
    for c in COEFFICIENTS:

        def field(theta: Tensor, c: float = c) -> Tensor:
            return torch.stack([control.estimated(linear_policy(each), reference, c) for each in theta])

        theta, slowest = settle(field, start)
        policy = linear_policy(theta[0])
        with torch.no_grad():
            objective = control.objective(policy, reference)
            gain = control.mean_return(policy) - control.mean_return(reference)
            price = control.beta * control.segment_kl(policy, reference)
        rows.append(
            {
                "setting": "control",
                "c": c,
                "points": 1,
                "field_max": float(field(theta).norm()),
                "slowest_rate_max": float(slowest),
                "gradient_of_J_median": float(control.true_gradient(policy, reference).norm()),
                "J": float(objective),
                "quality_gain": float(gain),
                "alignment_gain": float(gain - price),
            }
        )
    return rows


# Record and figure


def draw(biases: pd.DataFrame, ends: pd.DataFrame, path: Path) -> None:
    """Six panels: the bias, what it does to where ascent stops, and the same in control."""
    with panels(path, 2, 3, (3.7, 3.1)) as (_, axes):
        responses = biases[biases["part"] == "responses"]
        for beta, colour in zip(BETAS, (BLUE, ORANGE, GREEN, PINK), strict=True):
            here = responses[responses["setting"] == f"beta={beta}"]
            axes[0, 0].plot(
                here["c"], here["cosine_median"], color=colour, label=f"$\\beta$ = {beta}, median"
            )
            axes[0, 0].plot(here["c"], here["cosine_q05"], color=colour, ls=":")
            axes[0, 1].plot(
                here["c"], here["share_downhill"], color=colour, marker="o", ms=3, label=f"$\\beta$ = {beta}"
            )
        axes[0, 0].plot([], [], color=BLACK, ls=":", label="worst 5%")
        axes[0, 0].set(title="Responses: angle to grad J", xlabel="c", ylabel="cosine(T1 + c T2, grad J)")
        axes[0, 0].legend(loc="lower right")
        axes[0, 1].set(title="Points where T1 + c T2 leads down", xlabel="c", ylabel="share of problems")
        axes[0, 1].set_ylim(bottom=0)
        axes[0, 1].legend()

        for setting, colour, place in (
            ("every policy", BLUE, axes[0, 2]),
            ("few policies", ORANGE, axes[0, 2]),
            ("control", BLUE, axes[1, 2]),
        ):
            trade_off(place, ends[ends["setting"] == setting], colour, setting)
        axes[0, 2].set_title("Responses: where the flow of T1 + c T2 stops")
        axes[0, 2].legend(loc="upper left")
        axes[1, 2].set_title("Control: where the flow of T1 + c T2 stops")

        shades = ((0.0, ORANGE), (0.3, YELLOW), (1.0, BLUE))
        refined = biases[biases["part"] == "quadrature"]
        for c, colour in shades:
            errors = refined.loc[refined["c"] == c, "relative_error_max"]
            axes[1, 0].semilogy(NODES, errors, color=colour, marker="o", ms=3, label=f"c = {c}")
        axes[1, 0].set(
            title="Control, H = L = 2: distance to grad J",
            xlabel="quadrature nodes for each action",
            ylabel="relative error of T1 + c T2",
        )
        axes[1, 0].legend(loc="center right")

        names = [f"H={segment} L={judged}" for segment, judged, _ in LENGTHS]
        control = biases[biases["part"] == "control"].set_index(["c", "setting"])["relative_error_median"]
        for shift, (c, colour) in enumerate(shades):
            places = np.arange(len(names)) + (shift - 1) * 0.27
            axes[1, 1].bar(places, control.loc[c].loc[names], 0.27, color=colour, label=f"c = {c}")
        axes[1, 1].set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
        axes[1, 1].set(
            title="Control: a teacher that judges on, L > H", ylabel="relative error of T1 + c T2, median"
        )
        axes[1, 1].legend()


def trade_off(axes: Axes, ends: pd.DataFrame, colour: str, label: str) -> None:
    """J against what alignment is for, as c goes from 0 to 1, with both ends named."""
    axes.plot(ends["alignment_gain"], ends["J"], color=colour, marker="o", ms=3, label=label)
    for c in (0.0, 1.0):
        row = ends[ends["c"] == c].iloc[0]
        axes.annotate(
            f"c = {c:.0f}", (row["alignment_gain"], row["J"]), textcoords="offset points", xytext=(5, 4)
        )
    axes.set(xlabel="gain in E[quality] $-$ $\\beta$ KL($\\pi$ || ref)", ylabel="J")
    axes.margins(0.2)


def main() -> None:
    asked = arguments(__doc__).parse_args()
    biases = response_rows() + quadrature_rows() + control_bias_rows()
    ends = fixed_point_rows() + control_fixed_point_rows()
    about = {"what": __doc__}
    write(asked.results, "theory_gradient", biases, about)
    write(asked.results, "theory_gradient_fixed_points", ends, about)
    draw(pd.DataFrame(biases), pd.DataFrame(ends), asked.results / "theory_gradient.png")


if __name__ == "__main__":
    main()
