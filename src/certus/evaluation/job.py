"""Job: one evaluation, and the key under which its rows are kept."""

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from certus.core import ArgumentError, Certificates, Progress, validate
from certus.core.progress import silent
from certus.evaluation.block import Work
from certus.evaluation.source import source_hash, version
from certus.threats import NORMS, NormBall


class Certifies(Protocol):
    """What is asked of a certifier (`certus.certifiers.Certifier`): a proof, an attack or a statistic.

    block is how many inputs are handled together; gives_radius says whether one run gives a radius
    that is valid for every eps up to it; describe() is the full configuration as text.
    """

    @property
    def name(self) -> str:
        """Short name of the method, such as `crown`."""

    @property
    def gives_radius(self) -> bool:
        """True where the radius does not depend on the threat's eps."""

    @property
    def block(self) -> int:
        """Inputs handled together."""

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        threat: Any,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Certificates:
        """One answer for each input x [B, *shape] with label y [B]."""

    def describe(self) -> str:
        """The full configuration, which rows are keyed by."""


class Data(Protocol):
    """What is asked of a data set (`certus.zoo.Dataset`)."""

    @property
    def name(self) -> str:
        """Short name, such as `mnist`."""

    @property
    def x_test(self) -> Tensor:
        """Test inputs [N, *shape]."""

    @property
    def y_test(self) -> Tensor:
        """Test labels [N]."""

    def fingerprint(self) -> str:
        """Hash of the data."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """One evaluation: one model, one data set, one method, one threat.

    Inputs are every `every`-th of the test split from the first on, at most `limit` of them (all by
    default), or those of `indices`.
    model_hash identifies weights and operations (`Graph.fingerprint()`), and for a smoothed model
    also its noise; card is what the checkpoint says of itself. Raises ArgumentError for what cannot
    be keyed.
    """

    model: Callable[[Tensor], Tensor]
    model_name: str
    model_hash: str
    data: Data
    certifier: Certifies
    threat: Any
    card: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    every: int = 1
    indices: Sequence[int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.indices is not None and (self.limit is not None or self.every != 1):
            raise ArgumentError("give limit and every, or indices, not both")
        validate.count(self.every, "every")
        if self.limit is not None:
            validate.count(self.limit, "limit")
        validate.count(self.certifier.block, "block")
        if not isinstance(self.threat, NormBall) or self.threat.norm not in NORMS:
            raise ArgumentError(
                f"evaluation takes a ball in {', '.join(NORMS)}, got {type(self.threat).__name__}"
            )
        if not self.certifier.gives_radius and torch.as_tensor(self.threat.eps).numel() != 1:
            raise ArgumentError("evaluation needs one number as eps, the same for every input")

    @property
    def eps(self) -> float | None:
        """The threat's eps; None where the certifier gives a radius by itself."""
        if self.certifier.gives_radius:
            return None
        eps = self.threat.eps
        return float(eps.item() if isinstance(eps, Tensor) else eps)

    @property
    def question(self) -> NormBall:
        """The threat that the certifier is asked about: eps 0 where it gives a radius by itself.

        Otherwise its verdict would depend on an eps that is no part of the key, and a radius below
        that eps would count as nothing.
        """
        return NORMS[self.threat.norm](0.0, self.threat.clip) if self.eps is None else self.threat

    @property
    def clip(self) -> str:
        """The valid range of inputs as JSON text."""
        return json.dumps(
            None if self.threat.clip is None else [float(v) for v in self.threat.clip]
        )

    @cached_property
    def data_hash(self) -> str:
        """Fingerprint of the data, computed once."""
        return self.data.fingerprint()

    @property
    def key(self) -> str:
        """Hash of everything that the rows depend on, except which inputs are asked for."""
        parts = [
            self.model_hash,
            self.data_hash,
            self.certifier.name,
            self.certifier.describe(),
            self.threat.norm,
            repr(self.eps),
            self.clip,
            str(self.seed),
            version(),
            source_hash(),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def wanted(self) -> list[int]:
        """Positions in the test split, ascending; ArgumentError where one does not exist."""
        size = len(self.data.x_test)
        if self.indices is None:
            return list(range(0, size, self.every))[: self.limit]
        found = sorted({int(i) for i in self.indices})
        if not found or found[0] < 0 or found[-1] >= size:
            raise ArgumentError(
                f"indices must lie in 0..{size - 1} (the test split), got {self.indices!r}"
            )
        return found

    def work(self) -> Work:
        """What is done to each block of inputs."""
        return Work(
            run=self.key,
            model=self.model,
            model_name=self.model_name,
            data_name=self.data.name,
            certifier=self.certifier,
            question=self.question,
            norm=self.threat.norm,
            eps=self.eps,
        )

    def run(self) -> dict[str, Any]:
        """What the ledger keeps of this job."""
        versions = {
            "certus": version(),
            "code": source_hash()[:12],
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        return {
            "run": self.key,
            "model": self.model_name,
            "data": self.data.name,
            "split_size": len(self.data.x_test),
            "method": self.certifier.name,
            "config": self.certifier.describe(),
            "norm": self.threat.norm,
            "eps": self.eps,
            "clip": self.clip,
            "seed": self.seed,
            "versions": json.dumps(versions, sort_keys=True),
            "model_hash": self.model_hash,
            "data_hash": self.data_hash,
            "card": json.dumps(self.card, sort_keys=True, default=str),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
