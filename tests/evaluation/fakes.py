"""A tiny model, data set, certifier and attack whose answers can be computed by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from certus.core import AttackResult, Certificates, Progress, Reason, Verdict
from certus.core.claim import CERTIFICATE, EXACT, Claim
from certus.core.fingerprint import fingerprint
from certus.core.kinds import KIND, text
from certus.core.progress import silent
from certus.evaluation import Job
from certus.evaluation.columns import RUN_COLUMNS
from certus.evaluation.legacy import CLAIMED, completed
from certus.threats import Linf


@dataclass(frozen=True, eq=False)
class Data:
    """20 inputs of 4 values."""

    x_test: Tensor
    y_test: Tensor
    name: str = "tiny"

    def fingerprint(self) -> str:
        """Hash of the test split."""
        return fingerprint([("x", self.x_test), ("y", self.y_test)])


def data(size: int = 20) -> Data:
    """Inputs in [0, 1]; the label is whether the mean is above 1/2, wrong for every seventh."""
    x = torch.rand(size, 4, generator=torch.Generator().manual_seed(1))
    y = (x.mean(1) > 0.5).long()
    y[::7] = 1 - y[::7]
    return Data(x, y)


def model(x: Tensor) -> Tensor:
    """Logits [B, 2] whose difference is twice the mean's distance from 1/2."""
    mean = x.mean(1)
    return torch.stack([0.5 - mean, mean - 0.5], 1)


class StopHereError(Exception):
    """Raised by a certifier in the middle of a run."""


@dataclass(frozen=True)
class Exact:
    """Linf robustness of `model`: the mean moves by eps, so the radius is its distance from 1/2.

    The answers depend on the composition of the batch in `margin`, as floating point may.
    """

    block: int = 4
    gives_radius: bool = False
    name: str = "exact"
    fail_at: int | None = field(default=None, repr=False)
    calls: list[list[int]] = field(default_factory=list, repr=False, compare=False)

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        threat: Any,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Certificates:
        """Certify each input."""
        assert ids is not None
        progress(1, 2)
        if self.fail_at is not None and len(self.calls) == self.fail_at:
            raise StopHereError
        self.calls.append(list(ids))
        prediction = model(x).argmax(1)
        radius = (x.mean(1) - 0.5).abs()
        good = prediction == y
        sure = good & (radius > threat.eps)
        wrong = Reason.MISCLASSIFIED
        kind = [
            Verdict.VERIFIED if s else Verdict.UNKNOWN if g else Verdict.FALSIFIED
            for s, g in zip(sure, good, strict=True)
        ]
        return Certificates(
            prediction=prediction,
            verdict=kind,
            reason=[
                None if s else Reason.LOOSE if g else wrong for s, g in zip(sure, good, strict=True)
            ],
            radius=torch.where(sure, radius if self.gives_radius else threat.radius(x), 0.0),
            margin=radius + x.sum(),
            method=self.name,
            threat=threat.describe(),
            seconds=torch.full((len(x),), 0.01),
            witness=[None if g else x[b] for b, g in enumerate(good)],
        )

    def claim(self, threat: str) -> Claim:
        """Its settings are those that its repr shows."""
        return Claim(
            kind=EXACT if self.name == "exact" else CERTIFICATE,
            threat=threat,
            method=self.name,
            settings=text({KIND: "Exact", "block": self.block, "gives_radius": self.gives_radius}),
        )


@dataclass(frozen=True)
class Shift:
    """The best attack on `model`: every value moves by eps towards the other class."""

    name: ClassVar[str] = "shift"
    lie: bool = False

    def __call__(
        self, model: Any, x: Tensor, y: Tensor, threat: Any, ids: Sequence[int] | None = None
    ) -> AttackResult:
        """Attack each input; with `lie`, claim success everywhere."""
        far = x + torch.where(y == 1, -1.0, 1.0)[:, None]
        moved = threat.region(x).project(far)
        margin = (moved.mean(1) - 0.5) * torch.where(y == 1, 2.0, -2.0)
        return AttackResult(moved, (margin <= 0) | self.lie, margin)


def job(**changes: Any) -> Job:
    """A job on the fakes."""
    settings = {
        "model": model,
        "model_name": "mean",
        "model_hash": "m0",
        "data": data(),
        "certifier": Exact(),
        "threat": Linf(0.1, clip=None),
        "card": {"recipe": "none", "train_seconds": 2.5},
    }
    return Job(**(settings | changes))


def row(index: int = 0, **changes: Any) -> dict[str, Any]:
    """One row; by default a proof of radius 0.1 for a correct input."""
    base = {
        "run": "r",
        "model": "small",
        "data": "tiny",
        "index": index,
        "label": 1,
        "prediction": 1,
        "verdict": "verified",
        "reason": "",
        "radius": 0.1,
        "margin": 1.0,
        "method": "crown",
        "norm": "linf",
        "eps": 0.1,
        "confidence": 1.0,
        "seconds": 0.5,
        "evidence": "",
    }
    given = {name: changes.pop(name) for name in CLAIMED if name in changes}
    return retold(base | changes) | given


def retold(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the claim that its other columns tell of, as if it came from an older table."""
    return completed([{name: v for name, v in row.items() if name not in CLAIMED}])[0]


def run(of: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A run with every column, whose claim is that of a row (by default of `row()`)."""
    values = {str: "x", int: 1, float: 0.5}
    own = row() if of is None else of
    told = {name: own[name] if name in own else values[k] for name, k in RUN_COLUMNS.items()}
    return told | {"card": "{}", "settings": "{}", "alpha": 0.0} | changes


def fallen(index: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of a successful attack at 0.1."""
    found = {"verdict": "falsified", "reason": "attacked", "radius": 0.0, "method": "pgd"}
    return row(index, **(found | changes))
