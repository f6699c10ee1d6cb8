"""Certified L2 radius from logit margins and Lipschitz constants."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.core import ArgumentError, ModelError, numerics, validate
from certus.graph.affine import Linear
from certus.graph.graph import Graph
from certus.lipschitz.constant import lipschitz

SHRINK = 1 - 1e-6  # covers the rounding of constants, quotients and of the weights' own scaling


@dataclass(frozen=True, eq=False)
class LipschitzMargin:
    """What radii are computed from, once for each graph; made by `prepare`.

    rates [K, K] float64: z_i - z_j is rates[i, j]-Lipschitz in x (l2). constants: the l2 Lipschitz
    constant of every node's value. fingerprint: of the weights that they were computed from.
    """

    graph: Graph
    rates: Tensor
    constants: Sequence[float]
    fingerprint: str

    @property
    def constant(self) -> float:
        """The l2 Lipschitz constant of the logit vector."""
        return self.constants[self.graph.output]

    @torch.no_grad()
    def radius(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Certified L2 radius and clean margin, both float64 [B].

        x [B, *shape] in the graph's dtype, y int64 [B]. Guarantee: every x' with ||x' - x||_2 <
        radius has z_y(x') > z_j(x') for all j != y, in exact arithmetic; `numerics.guard` is taken
        off the margins and a millionth off the radius against ordinary rounding, which is a margin
        and not a proof. radius is 0 where the prediction is not y, and infinite where the logits
        are constant. margin is min_j z_y - z_j minus the guard. Raises ModelError where the weights
        have changed since `prepare`, ArgumentError and ModelError for inputs that do not fit.
        """
        if self.graph.fingerprint() != self.fingerprint:
            raise ModelError("the weights have changed since prepare(graph); prepare it again")
        x = validate.inputs(x, self.graph.input_shape)
        if x.dtype != self.graph.dtype:
            raise ArgumentError(f"inputs are {x.dtype}, the model computes in {self.graph.dtype}")
        z = validate.logits(self.graph(x), len(x))
        y = validate.labels(y, len(x), z.shape[1])
        guard = numerics.guard(z.abs().amax(1)).double()
        z = z.double()
        gaps = z.gather(1, y[:, None]) - z - guard[:, None]
        others = torch.arange(z.shape[1], device=z.device)[None] != y[:, None]
        rates = self.rates.to(z.device)[y]
        radii = torch.where(gaps > 0, gaps / rates, torch.zeros_like(gaps))
        radius = radii.masked_fill(~others, math.inf).amin(1) * SHRINK
        return radius, gaps.masked_fill(~others, math.inf).amin(1)


@torch.no_grad()
def prepare(graph: Graph, tolerance: float = 0.01) -> LipschitzMargin:
    """Constants of a classifier [B, *shape] -> [B, K].

    Where the output is a Linear on a vector, z_i - z_j is ||w_i - w_j|| L_rest-Lipschitz, with
    L_rest the constant of its input (GloRo: Leino, Wang & Fredrikson 2021); else sqrt(2) L, since
    z_i - z_j is the product of z with a vector of norm sqrt(2) (Tsuzuku, Sato & Sugiyama 2018).
    Raises what `lipschitz` raises, and ModelError where the output is not a vector of at least two
    logits.
    """
    if len(graph.output_shape) != 1 or graph.output_shape[0] < 2:
        raise ModelError(f"a classifier must return [B, K], K >= 2, got {graph.output_shape}")
    constants = lipschitz(graph, tolerance)
    node = graph.resolved().nodes[graph.output]
    classes = graph.output_shape[0]
    if not isinstance(node.op, Linear):
        rates = torch.full(
            (classes, classes), math.sqrt(2) * constants[graph.output], dtype=torch.float64
        )
    else:
        weight = node.op.weight.double()
        rates = torch.stack([(weight - row).norm(dim=1) for row in weight])
        rates = rates * constants[node.inputs[0]]
    if not bool(torch.isfinite(rates).all()):
        raise ModelError("the Lipschitz bound of the logit differences overflows")
    return LipschitzMargin(graph, rates, constants, graph.fingerprint())


def certified_radius(graph: Graph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`prepare(graph).radius(x, y)`: for repeated batches keep what `prepare` returns."""
    return prepare(graph).radius(x, y)
