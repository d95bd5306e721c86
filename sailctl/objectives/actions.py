"""SAIL where a response is one action and the label comes from a learned value Q.

Ding et al. 2024, arXiv 2406.15567: their design DPR (responses from the policy, labels from a reward
model), here with segments of one step. K actions a_k = m(s) + std * eps_k are drawn in each of B states. A
pair (i, j) of them has

    p = sigma(u_i - u_j),  u = Q / tau             the soft label, the probability that a_i is preferred
    h = r_i - r_j,  r = beta * log pi_theta/pi_ref  the score of ``sail``
    F = p log sigma(h) + (1 - p) log sigma(-h)     the log-likelihood of the soft label

and J = E[F] is maximised. Q depends on theta through the actions alone. The gradient is T1 + T2 of
``sail``, averaged over the K(K-1)/2 pairs of a state:

    T1 = beta * E[ w (grad log pi(a_i) - grad log pi(a_j)) ],  w = p - sigma(h)
    T2 = c * E[ F (grad log pi(a_i) + grad log pi(a_j)) ]

These are score-function forms (``score_action_loss``). Since an action is a smooth function of theta and of
noise, E[w grad log pi(a_i)] is also grad E[w(a_i(theta), a_j)] with theta *inside* w held, for any smooth w
that does not grow too fast: both are the derivative of one integral, before and after a change of variables.
So in pathwise form (derived; ``pathwise_action_loss``)

    T1 = beta * grad { E[w(a_i(theta), a_j)] - E[w(a_i, a_j(theta))] },  theta inside h held
    T2 = c * grad E[F(a_i(theta), a_j(theta))],                          theta inside F held

with the same expectation and much less noise, because the slope of Q is used and not its value alone. "Held"
means: detach the density's mean and std, and keep the gradient in the actions.

    actions = mean + std * noise
    logp = log_density(actions, mean.detach(), std.detach())

A third term is the penalty of SAIL-RevKL, ``kl_penalty``: it has a closed form in every state and is added
by the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sailctl.objectives.ranking import ranking_loss
from sailctl.objectives.robust import robust_cost
from sailctl.objectives.sail import label_chance, sail_loss

SMALLEST_SPREAD = 1e-6
"""Mean |Q_i - Q_j| below which a batch of values counts as equal: a label then says nothing."""


def effective_beta(beta: float, gamma: float) -> float:
    """The beta at which SAIL alone moves, near its reference, as SAIL-RevKL(beta, gamma) does.

    Derived, for responses of one step (H = 1). To first order in h and in u_i - u_j, T2 vanishes and

        T1 = (beta / 2) * [grad E[u] - beta * grad KL(pi_theta || pi_ref)],

    so SAIL is regularised by a KL already. Near the reference both directions of the KL have one gradient,
    and RevKL (Wu et al., UAI 2026, arXiv 2606.31524) subtracts gamma of it: the direction is that of SAIL
    with this beta, and the length beta / effective_beta times as much. Far from the reference they differ:
    SAIL's pull saturates with |h|, the KL's grows.

    Args:
        beta: scale of the implicit reward, > 0.
        gamma: weight of the KL penalty, >= 0.

    Returns:
        beta + 2 gamma / beta.
    """
    return beta + 2 * gamma / beta


def pessimistic_value(answers: Tensor, pessimism: float) -> Tensor:
    """Value of an action by two critics: their mean less ``pessimism`` times half of their difference.

    Half of the difference is the standard deviation of two answers, and this is the lower confidence bound of
    Ciosek et al. 2019 (arXiv 1910.12807). Where critics have seen little they differ, so that actions that
    are seldom taken are worth less.

    Args:
        answers: (2, B, K) values of the actions of each state by either critic.
        pessimism: 0 is the mean, 1 the smaller of the two, bit for bit (Fujimoto et al. 2018, arXiv
            1802.09477).

    Returns:
        (B, K) values, with the gradient of ``answers``.
    """
    return answers.amin(0) - 0.5 * (pessimism - 1.0) * (answers[0] - answers[1]).abs()


def label_temperature(q: Tensor, kappa: float, answers: Tensor | None = None, doubt: float = 0.0) -> Tensor:
    """Temperature tau of the labels: kappa times the mean |Q_i - Q_j| of the batch, and more where in doubt.

    Derived, not from a paper. The first part makes labels independent of the scale of Q, so that one kappa
    serves all tasks. The second is ``doubt`` times the mean over the pairs of a state by how much two critics
    differ about Q_i - Q_j: where they contradict each other, labels say little. It is a constant of the
    batch: no gradient passes through it.

    Args:
        q: (B, K) values of the actions of each state.
        kappa: >= 0; 1 makes the typical label sigma(1) = 0.73, 0 makes labels hard.
        answers: (2, B, K) values by either critic, of which ``doubt`` > 0 makes use.
        doubt: >= 0; 0 is bit for bit the first part alone.

    Returns:
        tau in the unit of Q, positive for kappa > 0, even where all values are equal: 0-d, or (B, 1) with
        ``doubt``. 0 for kappa = 0 without doubt.

    Raises:
        ValueError: when ``kappa`` or ``doubt`` is negative, ``q`` is not (B, K) with K >= 2, or ``doubt`` > 0
            comes without ``answers`` or without ``kappa``.
    """
    if kappa < 0:
        raise ValueError(f"kappa must be >= 0, not {kappa}")
    if doubt < 0:
        raise ValueError(f"doubt must be >= 0, not {doubt}")
    _check_shapes(q)
    tau = kappa * _differences(q.detach()).abs().mean().clamp(min=SMALLEST_SPREAD)
    if doubt == 0:
        return tau
    if answers is None or kappa == 0:
        raise ValueError("doubt > 0 needs the answers of both critics, and kappa > 0")
    one, two = (_differences(each) for each in answers.detach())
    return tau + doubt * (one - two).abs().mean(dim=1, keepdim=True)


def action_labels(q: Tensor, temperature: Tensor | float) -> Tensor:
    """Label of each pair of actions, z = 2p - 1 with p = sigma((Q_i - Q_j) / tau): a soft answer.

    The probabilities of Bradley and Terry 1952, on a learned value instead of a return.

    Args:
        q: (B, K) values of the actions of each state.
        temperature: tau >= 0 in the unit of Q, of all states or (B, 1) of each; 0 gives hard labels: +1, -1,
            or 0 where two values are equal.

    Returns:
        (B, K(K-1)/2) z in [-1, 1], without gradient, of the pairs (0, 1), (0, 2), ... (1, 2), ...

    Raises:
        ValueError: when ``temperature`` is negative, or ``q`` is not (B, K) with K >= 2.
    """
    tau = torch.as_tensor(temperature)
    if (tau < 0).any():
        raise ValueError(f"the temperature of labels must be >= 0, not {float(tau.min())}")
    _check_shapes(q)
    better = _differences(q.detach())
    if tau.ndim == 0 and tau == 0:
        return better.sign()
    return (better / (2 * temperature)).tanh()


def score_action_loss(
    q: Tensor,
    logp: Tensor,
    ref_logp: Tensor,
    *,
    temperature: Tensor | float,
    beta: float,
    c: float,
    baseline: bool,
    rho: float = 0.0,
    worst_case: str = "exact",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each state whose gradient is *minus* T1 + T2 in score-function form, at fixed actions.

    ``sail_loss`` on all pairs of a state, with soft labels: its T1, its robust cost and its metrics. In T2 a
    state is a group, since its pairs share actions.

    Args:
        q: (B, K) values of the actions; no gradient passes through them.
        logp: (B, K) log pi_theta of the actions, with gradient in theta and none in the actions (nats).
        ref_logp: (B, K) log pi_ref of the same, without gradient.
        temperature: tau of the labels in the unit of Q, >= 0 (``label_temperature``); 0 gives hard labels.
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient, 0 is online DPO, bit for bit.
        baseline: subtract in T2 the mean value of the other states' pairs.
        rho: bound on how far the true preference may lie from the labels', from 0 to 1; 0 is bit for bit the
            loss without.
        worst_case: ``exact`` charges rho |h|; ``clipped`` keeps the adversary's p within [0, 1].

    Returns:
        (B,) losses, the mean over the pairs of a state, and 0-d metrics without gradient: those of
        ``sail_loss`` over all pairs, and ``label_entropy``, the mean of -p log p - (1-p) log(1-p) in nats.
        log 2 = 0.69 is a label that says nothing, 0 a hard one, and F is never above minus the entropy.

    Raises:
        ValueError: when the tensors are not of one shape (B, K) with K >= 2, ``temperature`` is negative, or
            ``worst_case`` is neither of the two.
    """
    losses, metrics = _held_loss(q, logp, ref_logp, temperature, beta, rho, worst_case)
    if c != 0:
        factor = _sampling_factor(-losses.detach(), c, baseline)
        logp_1, logp_2 = _pairs(logp)
        losses = losses - factor * (logp_1 + logp_2)
        metrics["t2_weight"] = factor.abs().mean()
    return losses.mean(dim=1), metrics


def pathwise_action_loss(
    q: Tensor,
    logp: Tensor,
    ref_logp: Tensor,
    *,
    temperature: Tensor | float,
    beta: float,
    c: float,
    rho: float = 0.0,
    worst_case: str = "exact",
    logp_fixed: Tensor | None = None,
    with_metrics: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each state whose gradient is *minus* T1 + T2 in pathwise form, through the actions.

    Its expectation is that of ``score_action_loss`` (derived, in the module's head). w is minus itself when
    the actions of a pair change places, so with d = u_i - u_j, p = sigma(d) and s = sigma(h), what the loss
    of an ordered pair (i, j) puts on u_i and on r_i is

        -p (1 - p) (beta + c h)    and    beta s (1 - s) + c (s - p).

    Both are held, and the loss is linear in u and r: the gradient is all that it means.

    With rho > 0 the value of a pair is F minus the robust cost (Li et al. 2026, arXiv 2602.20457). The cost
    is continuous, and so pathwise in T2. In T1 it takes rho sign(h) from w, which jumps where h = 0 and is
    flat elsewhere (derived). The pathwise derivative of that is 0 at every sample; what it misses is what
    happens on the jump, rho E[2 delta(h) grad h(a_i(theta), a_j)], where no sample falls. So this part keeps
    the score-function form, at fixed actions. Hard labels and rankings (``ranked_action_loss``) jump with
    the actions as well, and have the score-function form alone.

    Args:
        q: (B, K) values of the actions, with gradient in the actions and none in the parameters of Q.
        logp: (B, K) log pi_theta of the same actions, with gradient in the actions and none in the
            parameters of the density (nats).
        ref_logp: (B, K) log pi_ref of the same, with gradient in the actions.
        temperature: tau of the labels in the unit of Q, > 0 (``label_temperature``).
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient, 0 is online DPO, bit for bit.
        rho: bound on how far the true preference may lie from the labels', from 0 to 1; 0 is bit for bit the
            loss without.
        worst_case: ``exact`` charges rho |h|; ``clipped`` keeps the adversary's p within [0, 1].
        logp_fixed: (B, K) log pi_theta with gradient in theta and none in the actions, of which rho > 0 makes
            use.
        with_metrics: whether to compute metrics, which take as long as the losses.

    Returns:
        (B,) losses, the mean over the pairs of a state, and the metrics of ``score_action_loss`` with a
        baseline, or none of them. ``t1_weight`` and ``t2_weight`` say how much each term asks for, not how it
        is estimated.

    Raises:
        ValueError: when the tensors are not of one shape (B, K) with K >= 2, ``temperature`` is not positive,
            rho > 0 comes without ``logp_fixed``, or ``worst_case`` is neither of the two.
    """
    if (torch.as_tensor(temperature) <= 0).any():
        raise ValueError("hard labels have no slope: the pathwise form needs a temperature above 0")
    _check_shapes(q, logp, ref_logp)
    choices = q.shape[1]
    pairs = choices * (choices - 1) // 2
    u, r = q / temperature, beta * (logp - ref_logp)
    with torch.no_grad():
        h = r[:, :, None] - r[:, None]
        p, s = (u[:, :, None] - u[:, None]).sigmoid(), h.sigmoid()
        on_u, on_r = -beta * p * (1 - p), beta * s * (1 - s)
        if c != 0:
            on_u, on_r = on_u - c * p * (1 - p) * h, on_r + c * (s - p)
        # An action is no pair with itself, where p and s are 1/2 and h is 0.
        on_u, on_r = on_u.sum(dim=2) + beta / 4, on_r.sum(dim=2) - beta / 4
    losses = (on_u * u + on_r * r).sum(dim=1) / pairs
    if rho != 0:
        if logp_fixed is None:
            raise ValueError("rho > 0 needs logp_fixed: the robust cost keeps the score-function form in T1")
        _check_shapes(q, logp_fixed)
        label = 2 * _differences(u).sigmoid() - 1
        h_fixed = _differences(beta * (logp_fixed - ref_logp.detach()))
        costs = robust_cost(h_fixed, rho, label_chance(label.detach(), worst_case))
        if c != 0:
            costs = costs + c * robust_cost(_differences(r), rho, label_chance(label, worst_case))
        losses = losses + costs.mean(dim=1)
    if not with_metrics:
        return losses, {}
    with torch.no_grad():
        held, metrics = _held_loss(q, logp, ref_logp, temperature, beta, rho, worst_case)
        metrics["t2_weight"] = _sampling_factor(-held, c, True).abs().mean()
    return losses, metrics


def ranked_action_loss(
    q: Tensor, logp: Tensor, ref_logp: Tensor, *, beta: float, c: float, baseline: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """``ranking_loss`` of the order in which Q puts the K actions of each state, the best first.

    Plackett-Luce as in Rafailov et al. 2023 (arXiv 2305.18290, appendix on the Plackett-Luce model). The
    order is hard, so there is no pathwise form. Of equal values either may be first.

    Args:
        q: (B, K) values of the actions; no gradient passes through them.
        logp: (B, K) log pi_theta of the actions, with gradient in theta and none in the actions (nats).
        ref_logp: (B, K) log pi_ref of the same, without gradient.
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient, 0 is online DPO, bit for bit.
        baseline: subtract in T2 the mean F of the other states.

    Returns:
        (B,) losses, and the metrics of ``ranking_loss``.

    Raises:
        ValueError: when the tensors are not of one shape (B, K) with K >= 2.
    """
    _check_shapes(q, logp, ref_logp)
    order = q.argsort(descending=True)
    return ranking_loss(logp.gather(1, order), ref_logp.gather(1, order), beta=beta, c=c, baseline=baseline)


def _held_loss(
    q: Tensor,
    logp: Tensor,
    ref_logp: Tensor,
    temperature: Tensor | float,
    beta: float,
    rho: float,
    worst_case: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(B, P) minus F plus the robust cost of each pair, labels held, and the metrics that need no T2."""
    _check_shapes(q, logp, ref_logp)
    label = action_labels(q, temperature)
    logp_1, logp_2 = (side.flatten() for side in _pairs(logp))
    ref_1, ref_2 = (side.flatten() for side in _pairs(ref_logp))
    losses, metrics = sail_loss(
        logp_1,
        logp_2,
        ref_1,
        ref_2,
        label.flatten(),
        beta=beta,
        c=0.0,
        group=None,
        rho=rho,
        worst_case=worst_case,
    )
    chances = torch.stack([1 + label, 1 - label]) / 2
    metrics["label_entropy"] = torch.special.entr(chances).sum(dim=0).mean()
    return losses.view_as(label), metrics


def _sampling_factor(value: Tensor, c: float, baseline: bool) -> Tensor:
    """(B, P) what T2 puts on grad log pi of both actions of a pair: c (V - b), for values V (B, P).

    b is ``leave_one_group_out`` over all pairs with a state as the group: the mean of the other states, since
    all have equally many pairs. With a single state b = 0.
    """
    if not baseline:
        return c * value
    mean = value.mean(dim=1, keepdim=True)
    return c * (value - (mean.sum() - mean) / max(len(value) - 1, 1))


def _pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) values at the first and at the second action of each unordered pair, (B, K(K-1)/2) both."""
    first, second = torch.triu_indices(values.shape[1], values.shape[1], 1)
    return values[:, first], values[:, second]


def _differences(values: Tensor) -> Tensor:
    """(B, K(K-1)/2) the value at the first action of each unordered pair less that at the second."""
    first, second = _pairs(values)
    return first - second


def _check_shapes(values: Tensor, *others: Tensor) -> None:
    if values.ndim != 2 or values.shape[1] < 2 or any(other.shape != values.shape for other in others):
        shapes = [tuple(each.shape) for each in (values, *others)]
        raise ValueError(f"values of actions must be of one shape (B, K) with K >= 2, got {shapes}")
