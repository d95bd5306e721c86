"""SAIL objectives on pairs of single actions, with labels from a learned value Q.

Ding et al. 2024, arXiv 2406.15567: their design DPR (responses from the policy, labels from a reward
model), here with segments of one step. K actions a_k = m(s) + std * eps_k are sampled in each of B states. A
pair (i, j) of them has

    p = sigma(u_i - u_j),  u = Q / tau             the soft label, the probability that a_i is preferred
    h = r_i - r_j,  r = beta * log pi_theta/pi_ref  the score of ``sail``
    F = p log sigma(h) + (1 - p) log sigma(-h)     the log-likelihood of the soft label

and J = E[F] is maximised. Q depends on theta only through the actions. The gradient is T1 + T2 of
``sail``, averaged over the K(K-1)/2 pairs of a state:

    T1 = beta * E[ w (grad log pi(a_i) - grad log pi(a_j)) ],  w = p - sigma(h)
    T2 = c * E[ F (grad log pi(a_i) + grad log pi(a_j)) ]

These are score-function forms (``score_action_loss``). An action is a smooth function of theta and noise, so
E[w grad log pi(a_i)] equals grad E[w(a_i(theta), a_j)] with theta *inside* w held fixed, for any smooth w of
bounded growth: both are the derivative of one integral, before and after a change of variables. Hence the
pathwise form (derived; ``pathwise_action_loss``)

    T1 = beta * grad { E[w(a_i(theta), a_j)] - E[w(a_i, a_j(theta))] },  theta inside h held fixed
    T2 = c * grad E[F(a_i(theta), a_j(theta))],                          theta inside F held fixed

with the same expectation and a much smaller variance, because it uses the gradient of Q and not only its
value. "Held fixed" means a stop-gradient on the density's mean and std, but not on the actions:

    actions = mean + std * noise
    logp = log_density(actions, mean.detach(), std.detach())

The caller adds the penalty of SAIL-RevKL, ``kl_penalty``, which has a closed form in every state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sailctl.objectives.ranking import ranking_loss
from sailctl.objectives.robust import label_cost
from sailctl.objectives.sail import sail_loss

SMALLEST_SPREAD = 1e-6
"""Lower bound of the mean |Q_i - Q_j| in the temperature: below it, values count as almost equal."""


def effective_beta(beta: float, gamma: float) -> float:
    """The beta for which SAIL has the gradient direction of SAIL-RevKL(beta, gamma) near the reference.

    Derived, for responses of one step (H = 1). To first order in h and in u_i - u_j, T2 vanishes and

        T1 = (beta / 2) * [grad E[u] - beta * grad KL(pi_theta || pi_ref)],

    so SAIL already contains a KL regularisation. Near the reference both directions of the KL have the same
    gradient, and RevKL (Wu et al., UAI 2026, arXiv 2606.31524) subtracts gamma times this gradient: the
    result has the direction of SAIL with this beta, and beta / effective_beta times its length. Far from the
    reference they differ: SAIL's regularisation saturates with |h|, while the KL grows.

    Args:
        beta: scale of the implicit reward, > 0.
        gamma: weight of the KL penalty, >= 0.

    Returns:
        beta + 2 gamma / beta.
    """
    return beta + 2 * gamma / beta


def pessimistic_value(twin_values: Tensor, pessimism: float) -> Tensor:
    """Lower confidence bound of two critics: their mean minus ``pessimism`` times half their difference.

    Half the difference is the standard deviation of the two values (Ciosek et al. 2019, arXiv 1910.12807).
    Critics differ where they have little data, so this lowers the values of rare actions.

    Args:
        twin_values: (2, B, K) values of both critics for the actions of each state.
        pessimism: 0 is the mean, 1 the smaller of the two, bit for bit (Fujimoto et al. 2018, arXiv
            1802.09477).

    Returns:
        (B, K) values, differentiable in ``twin_values``.
    """
    return twin_values.amin(0) - 0.5 * (pessimism - 1.0) * (twin_values[0] - twin_values[1]).abs()


def label_temperature(
    q: Tensor, kappa: float, twin_values: Tensor | None = None, doubt: float = 0.0
) -> Tensor:
    """Temperature tau of the labels: kappa times the mean |Q_i - Q_j| of the batch, plus a term for doubt.

    Derived, not from a paper. The first term makes labels independent of the scale of Q, so that one kappa
    fits all tasks. The second term is ``doubt`` times the mean, over the pairs of a state, of how much two
    critics differ in Q_i - Q_j: it softens the labels of states where the critics disagree. tau has no
    gradient.

    Args:
        q: (B, K) values of the actions of each state.
        kappa: >= 0; 1 makes the typical label sigma(1) = 0.73, 0 makes labels hard.
        twin_values: (2, B, K) values of both critics, required for ``doubt`` > 0.
        doubt: >= 0; 0 is bit for bit the first term alone.

    Returns:
        tau in the unit of Q: 0-d, or (B, 1) with ``doubt``. It is positive for kappa > 0, even if all values
        are equal, and 0 for kappa = 0 without doubt.

    Raises:
        ValueError: when ``kappa`` or ``doubt`` is negative, ``q`` is not (B, K) with K >= 2, or ``doubt`` > 0
            without ``twin_values`` or with kappa = 0.
    """
    if kappa < 0:
        raise ValueError(f"kappa must be >= 0, not {kappa}")
    if doubt < 0:
        raise ValueError(f"doubt must be >= 0, not {doubt}")
    _check_shapes(q)
    tau = kappa * _differences(q.detach()).abs().mean().clamp(min=SMALLEST_SPREAD)
    if doubt == 0:
        return tau
    if twin_values is None or kappa == 0:
        raise ValueError("doubt > 0 needs the values of both critics, and kappa > 0")
    first, second = (_differences(values) for values in twin_values.detach())
    return tau + doubt * (first - second).abs().mean(dim=1, keepdim=True)


def action_labels(q: Tensor, temperature: Tensor | float) -> Tensor:
    """Soft label of each pair of actions, z = 2p - 1 with p = sigma((Q_i - Q_j) / tau).

    The model of Bradley and Terry 1952, with a learned value instead of a return.

    Args:
        q: (B, K) values of the actions of each state.
        temperature: tau >= 0 in the unit of Q, a number or (B, 1); 0 gives hard labels: +1, -1, or 0 if both
            values are equal.

    Returns:
        (B, K(K-1)/2) z in [-1, 1], without gradient, for the pairs (0, 1), (0, 2), ... (1, 2), ...

    Raises:
        ValueError: when ``temperature`` is negative, or ``q`` is not (B, K) with K >= 2.
    """
    tau = torch.as_tensor(temperature)
    if (tau < 0).any():
        raise ValueError(f"the temperature of labels must be >= 0, not {float(tau.min())}")
    _check_shapes(q)
    difference = _differences(q.detach())
    if tau.ndim == 0 and tau == 0:
        return difference.sign()
    return (difference / (2 * temperature)).tanh()


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

    ``sail_loss`` on all pairs of a state, with soft labels: its T1, its robust cost and its metrics. In T2
    each state is a group, because its pairs share actions.

    Args:
        q: (B, K) values of the actions; no gradient passes through them.
        logp: (B, K) log pi_theta of the actions, with gradient in theta and none in the actions (nats).
        ref_logp: (B, K) log pi_ref of the same, without gradient.
        temperature: tau of the labels in the unit of Q, >= 0 (``label_temperature``); 0 gives hard labels.
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient, 0 is online DPO, bit for bit.
        baseline: subtract in T2 the mean value of the other states' pairs.
        rho: bound of the adversary, from 0 to 1 (``sail_loss``); 0 is bit for bit the loss without.
        worst_case: ``exact``, ``clipped`` or ``contaminated``, see ``robust.label_cost``.

    Returns:
        (B,) losses, the mean over the pairs of a state, and 0-d metrics without gradient: those of
        ``sail_loss`` over all pairs, and ``label_entropy``, the mean of -p log p - (1-p) log(1-p) in nats: at
        most log 2 = 0.69 for p = 1/2, and 0 for a hard label. F is never above minus the entropy.

    Raises:
        ValueError: when the tensors are not of one shape (B, K) with K >= 2, ``temperature`` is negative, or
            ``worst_case`` is none of the three.
    """
    losses, metrics = _fixed_action_losses(q, logp, ref_logp, temperature, beta, rho, worst_case)
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

    Its expectation is that of ``score_action_loss`` (derived in the module docstring). w changes its sign
    when the actions of a pair are swapped, so with d = u_i - u_j, p = sigma(d) and s = sigma(h), the
    derivatives of the loss of an ordered pair (i, j) in u_i and r_i are

        -p (1 - p) (beta + c h)    and    beta s (1 - s) + c (s - p).

    Both are constants of the loss, which is linear in u and r: only its gradient has a meaning.

    With rho > 0 the value of a pair is F minus the robust cost (Li et al. 2026, arXiv 2602.20457). The cost
    is continuous, so it is pathwise in T2. In T1 it subtracts rho sign(h) from w, which jumps at h = 0 and is
    constant elsewhere (derived). The pathwise derivative is therefore 0 at every sample and misses the
    contribution of the jump, rho E[2 delta(h) grad h(a_i(theta), a_j)]. So this part has score-function form,
    at fixed actions. Hard labels and rankings (``ranked_action_loss``) also jump with the actions, and exist
    in score-function form only.

    Args:
        q: (B, K) values of the actions, with gradient in the actions and none in the parameters of Q.
        logp: (B, K) log pi_theta of the same actions, with gradient in the actions and none in the
            parameters of the density (nats).
        ref_logp: (B, K) log pi_ref of the same, with gradient in the actions.
        temperature: tau of the labels in the unit of Q, > 0 (``label_temperature``).
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient, 0 is online DPO, bit for bit.
        rho: bound of the adversary, from 0 to 1 (``sail_loss``); 0 is bit for bit the loss without.
        worst_case: ``exact``, ``clipped`` or ``contaminated``, see ``robust.label_cost``.
        logp_fixed: (B, K) log pi_theta with gradient in theta and none in the actions; required for rho > 0.
        with_metrics: whether to compute metrics, which take as long as the losses.

    Returns:
        (B,) losses, the mean over the pairs of a state, and the metrics of ``score_action_loss`` with a
        baseline, or no metrics. ``t1_weight`` and ``t2_weight`` are the weights of the score-function form.

    Raises:
        ValueError: when the tensors are not of one shape (B, K) with K >= 2, ``temperature`` is not positive,
            rho > 0 without ``logp_fixed``, or ``worst_case`` is none of the three.
    """
    if (torch.as_tensor(temperature) <= 0).any():
        raise ValueError("hard labels have no gradient: the pathwise form needs a temperature above 0")
    _check_shapes(q, logp, ref_logp)
    choices = q.shape[1]
    pairs = choices * (choices - 1) // 2
    u, r = q / temperature, beta * (logp - ref_logp)
    with torch.no_grad():
        h = r[:, :, None] - r[:, None]
        p, s = (u[:, :, None] - u[:, None]).sigmoid(), h.sigmoid()
        grad_u, grad_r = -beta * p * (1 - p), beta * s * (1 - s)
        if c != 0:
            grad_u, grad_r = grad_u - c * p * (1 - p) * h, grad_r + c * (s - p)
        # Remove the terms of an action with itself, where p and s are 1/2 and h is 0.
        grad_u, grad_r = grad_u.sum(dim=2) + beta / 4, grad_r.sum(dim=2) - beta / 4
    losses = (grad_u * u + grad_r * r).sum(dim=1) / pairs
    if rho != 0:
        if logp_fixed is None:
            raise ValueError("rho > 0 needs logp_fixed: the robust cost has score-function form in T1")
        _check_shapes(q, logp_fixed)
        label = 2 * _differences(u).sigmoid() - 1
        h_fixed = _differences(beta * (logp_fixed - ref_logp.detach()))
        costs = label_cost(h_fixed, rho, label.detach(), worst_case)
        if c != 0:
            costs = costs + c * label_cost(_differences(r), rho, label, worst_case)
        losses = losses + costs.mean(dim=1)
    if not with_metrics:
        return losses, {}
    with torch.no_grad():
        pair_losses, metrics = _fixed_action_losses(q, logp, ref_logp, temperature, beta, rho, worst_case)
        metrics["t2_weight"] = _sampling_factor(-pair_losses, c, True).abs().mean()
    return losses, metrics


def ranked_action_loss(
    q: Tensor, logp: Tensor, ref_logp: Tensor, *, beta: float, c: float, baseline: bool, rho: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """``ranking_loss`` of the K actions of each state, ranked by Q from best to worst.

    Plackett-Luce as in Rafailov et al. 2023 (arXiv 2305.18290, appendix on the Plackett-Luce model). The
    ranking is hard, so there is no pathwise form. Equal values are in arbitrary order.

    Args:
        q: (B, K) values of the actions; no gradient passes through them.
        logp: (B, K) log pi_theta of the actions, with gradient in theta and none in the actions (nats).
        ref_logp: (B, K) log pi_ref of the same, without gradient.
        beta: scale of the implicit reward, > 0.
        c: weight of T2, >= 0; 1 is the exact gradient, 0 is online DPO, bit for bit.
        baseline: subtract in T2 the mean value of the other states' rankings.
        rho: share of arbitrary rankings, from 0 to 1; 0 is bit for bit the loss without.

    Returns:
        (B,) losses, and the metrics of ``ranking_loss``.

    Raises:
        ValueError: when the tensors are not of one shape (B, K) with K >= 2.
    """
    _check_shapes(q, logp, ref_logp)
    order = q.argsort(descending=True)
    ranked = logp.gather(1, order), ref_logp.gather(1, order)
    return ranking_loss(*ranked, beta=beta, c=c, baseline=baseline, rho=rho)


def _fixed_action_losses(
    q: Tensor,
    logp: Tensor,
    ref_logp: Tensor,
    temperature: Tensor | float,
    beta: float,
    rho: float,
    worst_case: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(B, P) minus F plus the robust cost of each pair, labels held fixed, and the metrics without T2's."""
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
    probabilities = torch.stack([1 + label, 1 - label]) / 2
    metrics["label_entropy"] = torch.special.entr(probabilities).sum(dim=0).mean()
    return losses.view_as(label), metrics


def _sampling_factor(value: Tensor, c: float, baseline: bool) -> Tensor:
    """(B, P) factors c (V - b) of grad log pi of both actions of a pair in T2, for values V (B, P).

    b is ``leave_one_group_out`` over all pairs with each state as a group. All states have equally many
    pairs, so it is the mean of the other states. With a single state b = 0.
    """
    if not baseline:
        return c * value
    mean = value.mean(dim=1, keepdim=True)
    return c * (value - (mean.sum() - mean) / max(len(value) - 1, 1))


def _pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K(K-1)/2) values of the first and of the second action of each unordered pair, from (B, K)."""
    first, second = torch.triu_indices(values.shape[1], values.shape[1], 1)
    return values[:, first], values[:, second]


def _differences(values: Tensor) -> Tensor:
    """(B, K(K-1)/2) value of the first action of each unordered pair minus that of the second."""
    first, second = _pairs(values)
    return first - second


def _check_shapes(values: Tensor, *others: Tensor) -> None:
    if values.ndim != 2 or values.shape[1] < 2 or any(other.shape != values.shape for other in others):
        shapes = [tuple(each.shape) for each in (values, *others)]
        raise ValueError(f"values of actions must be of one shape (B, K) with K >= 2, got {shapes}")
