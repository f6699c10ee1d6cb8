"""What an attack ascends: functions of logits [B, K], labels and targets [B]; their slope."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from certus.core.replay import margin

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def away(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Minus the margin (Carlini and Wagner 2017): never saturates; the target is not used."""
    return -margin(logits, y)


def toward(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_target - z_y: the margin of one other class (the targeted form of `away`)."""
    return (logits.gather(1, target.unsqueeze(1)) - logits.gather(1, y.unsqueeze(1))).squeeze(1)


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """-log softmax(z)_y, which weighs all other classes at once; the target is not used."""
    return functional.cross_entropy(logits, y, reduction="none")


def slope(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, target: Tensor, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Logits [B, K] and the objective's gradient [B, *shape] at x, scaled to largest entry 1.

    Works under `no_grad`, and leaves no gradient on the model's parameters.
    A gradient that is NaN or infinite in an element is zero there; so is one that does not exist.
    """
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        logits = model(leaf)
        value = objective(logits, y, target).sum()
        found = None
        if value.requires_grad:
            (found,) = torch.autograd.grad(value, leaf, allow_unused=True)
    gradient = torch.zeros_like(leaf.detach()) if found is None else found.detach()
    gradient = torch.where(torch.isfinite(gradient), gradient, 0.0)
    largest = gradient.flatten(1).abs().amax(1).reshape(-1, *[1] * (x.ndim - 1))
    # Without this, squares of tiny or huge entries under- or overflow inside a norm.
    return logits.detach(), gradient / torch.where(largest > 0, largest, 1.0)
