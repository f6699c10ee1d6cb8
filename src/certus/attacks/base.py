"""Attack: one sealed entry that validates, searches, and trusts nothing that the search returns."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from certus.core import ArgumentError, AttackResult, Model
from certus.core.replay import margins, refuse_training, repeatable, same
from certus.core.validate import inputs, labels, logits
from certus.threats import Box, Region, Threat
from certus.threats.region import spread

Classifier = Callable[[Tensor], Tensor]

# How far a point that rounding left outside is pulled towards the clean input, one after the other.
PULLS = tuple(2.0**-k for k in (20, 17, 14, 11, 8, 5, 3, 1))


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """A search for counterexamples. Leaves are frozen records of their settings and write `run`.

    A result without success proves nothing. Every success is a proof: the point lies in the region
    with zero tolerance, and the original model, replayed here in the batch and by itself, gives some class
    j != y a logit z_j >= z_y on it (a tie counts: a certificate claims z_y > z_j).
    """

    name: ClassVar[str]

    @abstractmethod
    def run(
        self, model: Classifier, x: Tensor, y: Tensor, region: Region, ids: Sequence[int]
    ) -> Tensor:
        """Candidates [B, *shape], one for each x, all of which are classified as y.

        `model` may be differentiated. ids are the keys of the randomness. Nothing is assumed of
        the candidates: the caller projects, checks and replays them.
        """

    @final
    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        threat: Threat | Region,
        ids: Sequence[int] | None = None,
    ) -> AttackResult:
        """Attack inputs x [B, *shape] with labels y [B] under a threat (or in a ready region).

        The result holds, for each input, the point with the smallest margin that was found: the
        clean input where the model is wrong on it, or where nothing better was found. Dtype and
        device are those of x. A `Model` such as a Graph is replayed on its original. Raises ArgumentError for
        inputs, labels, ids or a region that do not fit, ModelError for a model in training mode,
        one whose logits are not [B, K] and finite on the clean inputs, and one that is seen to be random,
        to keep state or to mix the rows of a batch.
        """
        original = _original(model)
        inputs(x, _shape(model))
        _refuse_mismatch(original, x)
        # Copies, so that tensors made in inference mode may be differentiated here all the same.
        with torch.inference_mode(False), torch.no_grad():
            x = x.detach().clone()
            before = logits(original(x.clone()), len(x))
            y = labels(y, len(x), before.shape[1]).to(x.device).clone()
            region, keys = _region(threat, x), _ids(ids, len(x))
            repeatable(original, _probe(region, x))
            clean = margins(original, x, y, before)
            found = x.clone()
            left = (clean > 0).nonzero().squeeze(1)
            if len(left):
                part, start = region.select(left), x[left]
                keys = [keys[i] for i in left.tolist()]
                raw = self.run(model, start.clone(), y[left], region.select(left), keys)
                found[left] = fit(part, start, _checked(raw, start, self.name))
            moved = margins(original, found, y)
            same(before, original(x.clone()))  # whatever was called in between
            better = moved < clean  # False where the replay is NaN
            final_margin = torch.where(better, moved, clean)
            found = torch.where(spread(better, x), found, x)
            return AttackResult(found, (final_margin <= 0) & region.contains(found), final_margin)

    def describe(self) -> str:
        """Name and full configuration, such as `PGD(steps=40, ...)`; keys a result."""
        return repr(self)


def fit(region: Region, x: Tensor, points: Tensor) -> Tensor:
    """Points [B, *shape] moved into the region, which contains x; zero tolerance.

    Projects, pulls those that rounding still leaves outside towards x, and gives x up to the last: the
    result satisfies `region.contains` wherever x does. Elements that are not finite become those of x.
    """
    points = region.project(torch.where(torch.isfinite(points), points, x))
    outside = ~region.contains(points)
    for pull in PULLS:
        if not bool(outside.any()):
            return points
        points = torch.where(spread(outside, x), x + (points - x) * (1 - pull), points)
        outside = ~region.contains(points)
    return torch.where(spread(outside, x), x, points)


def _probe(region: Region, x: Tensor) -> Tensor:
    """A few rows to try a model on: clean inputs, and two points far apart in the first one's region."""
    first = region.select(torch.tensor([0], device=x.device))
    ends = [fit(first, x[:1], corner[:1]) for corner in (region.lower, region.upper)]
    return torch.cat([x[:3], *ends])


def _original(model: Classifier) -> Classifier:
    """What counterexamples are replayed on; refuses a model in training mode."""
    original = model.original if isinstance(model, Model) else model
    refuse_training(original)
    return original


def _shape(model: Classifier) -> tuple[int, ...] | None:
    return model.input_shape if isinstance(model, Model) else None


def _refuse_mismatch(original: Classifier, x: Tensor) -> None:
    if not isinstance(original, nn.Module):
        return
    for p in original.parameters():
        if p.is_floating_point() and (p.dtype, p.device) != (x.dtype, x.device):
            raise ArgumentError(
                f"inputs are {x.dtype} on {x.device}, the model is {p.dtype} on {p.device}; "
                "convert one of them with .to()"
            )
        return  # the first parameter speaks for the module


def _region(threat: Threat | Region, x: Tensor) -> Region:
    if isinstance(threat, Region) and type(threat) is not Box:  # a plain Box is a threat too
        region: Region = threat
    else:
        region = threat.region(x)
    if region.center.shape != x.shape or region.center.dtype != x.dtype:
        raise ArgumentError(
            f"the region is {region.center.dtype} {tuple(region.center.shape)}, "
            f"the inputs are {x.dtype} {tuple(x.shape)}"
        )
    if not bool(region.allows(x).all()):
        raise ArgumentError("a clean input lies outside its region")
    return region


def _ids(ids: Sequence[int] | None, batch: int) -> list[int]:
    keys = list(range(batch)) if ids is None else [int(i) for i in ids]
    if len(keys) != batch or min(keys) < 0:
        raise ArgumentError(f"ids must be {batch} integers >= 0, one for each input, got {keys}")
    return keys


def _checked(raw: object, x: Tensor, name: str) -> Tensor:
    if not isinstance(raw, Tensor) or raw.shape != x.shape:
        shape = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        raise ArgumentError(f"attack {name} must return points {tuple(x.shape)}, got {shape}")
    return raw.detach().to(x)
