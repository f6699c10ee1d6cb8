"""What every family of method returns: bounds, attack results, certificates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from certus.core.claim import NETWORK
from certus.core.errors import ArgumentError, require
from certus.core.verdict import Reason, Verdict


@dataclass(frozen=True, eq=False)
class Bounds:
    """Interval bounds: lower <= value <= upper elementwise, in the dtype of the model."""

    lower: Tensor
    upper: Tensor

    @property
    def width(self) -> Tensor:
        """upper - lower."""
        return self.upper - self.lower


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack found, already re-checked by the sealed entry of `Attack`.

    inputs [B, *shape] lie in the region; success [B] says where the original model gives another
    class than the label on them; margin [B] is z_y - max_j z_j there (at most 0 where success: a tie
    breaks the claim z_y > z_j).
    """

    inputs: Tensor
    success: Tensor
    margin: Tensor


def statistical(alpha: float) -> float:
    """Confidence of a claim that is wrong with chance alpha: 1 - alpha, never 1, which means a proof."""
    return min(1.0 - alpha, math.nextafter(1.0, 0.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What is concluded about one input; what the fields mean says `Certificates`."""

    verdict: Verdict
    reason: Reason | None
    radius: float
    margin: float = math.nan
    witness: Tensor | None = None
    prediction: int | None = None  # only where the classifier is not the network itself
    evidence: dict[str, Any] = field(default_factory=dict)  # what a statistical claim rests on


@dataclass(frozen=True, eq=False, kw_only=True)
class Certificates:
    """One answer for each of B inputs, from one method under one threat.

    prediction [B] int64 is the class of the clean input (-1: the smoothed classifier abstains).
    radius [B] is the certified radius in the norm of the threat, in input units: 0 where nothing is
    certified, NaN where the threat has no single radius. margin [B] is a proven lower bound of
    z_y - max_j z_j over the region, NaN where the family has none. confidence is 1 for a proof and
    `statistical(alpha)` < 1 for a statistical claim. subject is the function spoken of (`core.claim`).
    witness[b] is a counterexample that was replayed, or None.
    """

    prediction: Tensor
    verdict: list[Verdict]
    reason: list[Reason | None]
    radius: Tensor
    margin: Tensor
    method: str
    threat: str
    confidence: float = 1.0
    subject: str = NETWORK
    seconds: Tensor
    witness: list[Tensor | None]
    evidence: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse records that contradict themselves."""
        sizes = {len(self.verdict), len(self.reason), len(self.witness), *map(len, self._tensors())}
        if len(sizes) != 1:
            raise ArgumentError(f"a Certificates record needs one entry per input, got {sizes}")
        for verdict, reason, witness in zip(self.verdict, self.reason, self.witness, strict=True):
            if verdict is Verdict.FALSIFIED and witness is None:
                raise ArgumentError("FALSIFIED needs a witness that was replayed")
            if (verdict is Verdict.VERIFIED) != (reason is None):
                raise ArgumentError("exactly the answers that are not VERIFIED carry a reason")

    @classmethod
    def of(
        cls,
        answers: Sequence[Answer],
        *,
        method: str,
        threat: str,
        seconds: float | Tensor,
        confidence: float = 1.0,
        subject: str = NETWORK,
        prediction: Tensor | None = None,
    ) -> "Certificates":
        """The record of some answers.

        seconds: of each input, or in all, which they share evenly. prediction [B] is the class of those
        that bring none of their own.
        """
        size = len(answers)
        network = [None] * size if prediction is None else prediction.tolist()
        own = [
            z if a.prediction is None else a.prediction
            for z, a in zip(network, answers, strict=True)
        ]
        return cls(
            prediction=torch.tensor(own),
            verdict=[a.verdict for a in answers],
            reason=[a.reason for a in answers],
            radius=torch.tensor([a.radius for a in answers], dtype=torch.float64),
            margin=torch.tensor([a.margin for a in answers], dtype=torch.float64),
            method=method,
            threat=threat,
            confidence=confidence,
            subject=subject,
            seconds=seconds
            if isinstance(seconds, Tensor)
            else torch.full((size,), seconds / size, dtype=torch.float64),
            witness=[a.witness for a in answers],
            evidence=[a.evidence for a in answers],
        )

    def answers(self) -> list[Answer]:
        """One for each input."""
        return [
            Answer(
                verdict=self.verdict[b],
                reason=self.reason[b],
                radius=float(self.radius[b]),
                margin=float(self.margin[b]),
                witness=self.witness[b],
                prediction=int(self.prediction[b]),
                evidence=self.evidence[b] if self.evidence else {},
            )
            for b in range(len(self))
        ]

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.prediction, self.radius, self.margin, self.seconds

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.verdict)

    @property
    def certified(self) -> Tensor:
        """Bool [B]: the label is the prediction and provably stays it under the threat."""
        return torch.tensor([v is Verdict.VERIFIED for v in self.verdict])

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dict for each input (numbers and strings; the witness is left out)."""
        return [
            {
                "prediction": int(self.prediction[b]),
                "verdict": self.verdict[b].value,
                "reason": reason.name.lower() if (reason := self.reason[b]) else "",
                "radius": float(self.radius[b]),
                "margin": float(self.margin[b]),
                "method": self.method,
                "threat": self.threat,
                "confidence": self.confidence,
                "seconds": float(self.seconds[b]),
            }
            for b in range(len(self))
        ]

    def to_frame(self) -> Any:
        """A pandas DataFrame with one row per input (needs the `report` extra)."""
        pandas: Any = require("pandas", "report")
        return pandas.DataFrame(self.to_rows())
