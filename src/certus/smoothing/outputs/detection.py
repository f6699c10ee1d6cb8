"""Detection: boxes by median smoothing, with bounds of their overlap, score and class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor

from certus.core import ArgumentError, ModelError, Progress
from certus.core.progress import silent
from certus.smoothing.outputs.median import SmoothedRegression
from certus.smoothing.outputs.sampled import Sampled, values
from certus.smoothing.outputs.shift import shift_of

SCORE, CLASS = 4, 5  # columns after x1, y1, x2, y2

Order = Callable[[Tensor], Tensor]
_SLACK = 1e-9


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections:
    """M boxes for each input and where g's boxes stay within a radius of it.

    boxes, lower, upper float64 [B, M, C] with columns x1, y1, x2, y2, score and perhaps class: an
    estimate of g(x), and bounds of g(x') everywhere in reach. For each input all of them together hold
    with chance `confidence`.
    """

    boxes: Tensor
    lower: Tensor
    upper: Tensor
    radius: float
    threat: str
    confidence: float
    evidence: list[dict[str, Any]]

    def iou(self, reference: Tensor | None = None) -> Tensor:
        """At least this intersection over union of every box with a reference [B, M, 4] (own: boxes).

        float64 [B, M], the least over all boxes with coordinates in their intervals; 0 where one of
        them is unbounded.
        """
        fixed = self.boxes[..., :4] if reference is None else reference.to(self.boxes)
        if fixed.shape != self.boxes[..., :4].shape:
            raise ArgumentError(
                f"reference must be boxes {tuple(self.boxes[..., :4].shape)}, got {tuple(fixed.shape)}"
            )
        return least_iou(self.lower[..., :4], self.upper[..., :4], fixed)

    def present(self, score: float) -> Tensor:
        """Which boxes keep at least this score, bool [B, M]."""
        return self.lower[..., SCORE] >= score

    def classes(self) -> Tensor:
        """The class that a box keeps, int64 [B, M]; -1 where it is not certain."""
        if self.boxes.shape[-1] <= CLASS:
            raise ArgumentError("these boxes have no column for a class")
        low, high = self.lower[..., CLASS], self.upper[..., CLASS]
        return torch.where(low == high, self.boxes[..., CLASS], -1.0).long()

    def certified(self, score: float, iou: float, reference: Tensor | None = None) -> Tensor:
        """Which boxes keep this score, this overlap and, where there are classes, theirs: bool [B, M]."""
        kept = self.present(score) & (self.iou(reference) >= iou)
        return kept & (self.classes() >= 0) if self.boxes.shape[-1] > CLASS else kept


@dataclass(frozen=True, eq=False)
class SmoothedDetection(Sampled):
    """g(x) = the median, number by number, of the boxes that `module` finds in noisy copies of x.

    module is any callable [N, *rows] -> [N, M, 5 or 6]: M boxes x1, y1, x2, y2, score and perhaps
    class (a number from 0), always as many; where fewer are found, the rest has score 0. The
    rest is as for `SmoothedRegression` (Chiang et al. 2020). The median of class numbers is certain
    only where one class has enough probability, whatever the others are called.

    order [n, M, C] -> [n, M] is the number by which a copy's boxes are sorted, smallest first, as
    `by_score` or `by_position`; None keeps the module's order, for boxes that have fixed places. A median is
    meaningful where the same place holds the same object in most copies.
    """

    order: Order | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what `SmoothedRegression` refuses, and an order that cannot be called."""
        super().__post_init__()
        shift_of(self.noise)
        if self.order is not None and not callable(self.order):
            raise ArgumentError("order must be a function such as by_score, or None")

    def certify(
        self,
        x: Tensor,
        radius: float,
        n: int = 10_000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Detections:
        """Bounds of all boxes within `radius` of each input; alpha is spent on all of an input together.

        Arguments and errors as for `SmoothedRegression.certify`; ModelError for outputs that are no boxes.
        """
        boxes = _Boxes(self.module, self.noise, seed=self.seed, batch=self.batch, order=self.order)
        found = boxes.certify(x, radius, n, alpha, ids, progress)
        return Detections(
            boxes=found.estimate,
            lower=found.lower,
            upper=found.upper,
            radius=found.radius,
            threat=found.threat,
            confidence=found.confidence,
            evidence=found.evidence,
        )


@dataclass(frozen=True, eq=False)
class _Boxes(SmoothedRegression):
    """The numbers of sorted boxes."""

    order: Order | None = field(default=None, kw_only=True)

    def read(self, answers: object, rows: int) -> Tensor:
        """Boxes [rows, M, 5 or 6], sorted, or ModelError."""
        found = values(answers, rows)
        if found.ndim != 3 or found.shape[2] not in (SCORE + 1, CLASS + 1):
            raise ModelError(
                f"the module must return boxes [{rows}, M, 5 or 6], got {tuple(found.shape)}"
            )
        if self.order is None:
            return found
        key = self.order(found)
        if not isinstance(key, Tensor) or key.shape != found.shape[:2]:
            raise ArgumentError(
                f"order must return one number for each box {tuple(found.shape[:2])}"
            )
        rank = key.argsort(dim=1, stable=True)
        return found.take_along_dim(rank[..., None], dim=1)


def by_score(boxes: Tensor) -> Tensor:
    """Best boxes first: minus the score of boxes [n, M, C]."""
    return -boxes[..., SCORE]


def by_position(boxes: Tensor) -> Tensor:
    """From left to right by the center; boxes of score 0 or less last."""
    center = (boxes[..., 0] + boxes[..., 2]) / 2
    return torch.where(boxes[..., SCORE] > 0, center, torch.inf)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union [...] of boxes [..., 4]; 0 where a box has no area."""
    corner = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(
        one[..., :2], other[..., :2]
    )
    shared = corner.clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (one, other)]
    union = areas[0] + areas[1] - shared
    return torch.where(shared > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def least_iou(lower: Tensor, upper: Tensor, reference: Tensor) -> Tensor:
    """The least overlap of a reference with the boxes between lower and upper, all float64 [..., 4].

    Along each coordinate the overlap rises to the reference's own and falls beyond it (while the
    other three stay, shrinking a box outside the reference lowers the union alone, inside it takes from
    the intersection what it takes from the box, and less from the union). So the least of all is at
    one of 16 corners. 0 where a coordinate is unbounded; rounded down.
    """
    bounded = (torch.isfinite(lower) & torch.isfinite(upper)).all(-1)
    # no box at all in place of an unbounded one
    ends = [torch.where(bounded[..., None], end, 0.0) for end in (lower, upper)]
    corners = [
        overlap(torch.stack([ends[side][..., i] for i, side in enumerate(sides)], -1), reference)
        for sides in product((0, 1), repeat=4)
    ]
    return torch.stack(corners).amin(0) * (1 - _SLACK)
