"""Answers from certified radii: does the threat stay inside?"""

import math

import torch
from torch import Tensor

from certus.certifiers.base import Query
from certus.core import Answer, Reason, UnsupportedError, Verdict
from certus.smoothing.noise.conversion import converted, convertible

_WHOLE = ("l0", "l0-pixels", "patch")  # norms that count: a radius of 3 includes three changes


def out_of_reach(norm: str, asked: str) -> str | None:
    """Why radii in a norm say nothing about another one; None where they do. L2 bounds every region."""
    if norm == "l2" or convertible(norm, asked):
        return None
    return (
        f"this noise certifies {norm}, which says nothing about {asked}; `certus methods` "
        "lists noises and norms"
    )


def within(query: Query, radius: Tensor, norm: str = "l2") -> list[Answer]:
    """Answers from certified radii [B] (float64) in a norm: VERIFIED where the threat stays inside.

    An L2 radius is compared with how far the region reaches in L2, which takes its clip range into
    account; others with the threat's own size after conversion. The answer's radius is in the threat's
    norm, NaN for a box, and 0 where nothing is certified, as by a NaN radius. Raises UnsupportedError
    where a radius in `norm` says nothing about the threat.
    """
    asked = query.threat.norm
    reason = out_of_reach(norm, asked)
    if reason is not None:
        raise UnsupportedError(reason)
    size, known = query.x[0].numel(), convertible(norm, asked)
    own = torch.where(radius > 0, radius, 0.0)  # NaN proves nothing
    found = converted(own.numpy(), norm, asked, size) if known else own.numpy() * math.nan
    if norm == "l2":
        inside = own > query.region.l2_extent(query.x).double().cpu() * (1 + 1e-6)
    elif norm in _WHOLE:
        inside = torch.from_numpy(found) >= query.radius.double().cpu()
    else:
        inside = torch.from_numpy(found) > query.radius.double().cpu()
    inside &= own > 0
    return [
        Answer(
            verdict=Verdict.VERIFIED if proven else Verdict.UNKNOWN,
            reason=None if proven else Reason.RADIUS if some else Reason.LOOSE,
            radius=float(r) if some else 0.0,
        )
        for proven, some, r in zip(inside.tolist(), (own > 0).tolist(), found, strict=True)
    ]
