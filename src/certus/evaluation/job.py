"""Job: one evaluation, and the key under which its rows are kept."""

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from certus.core import ArgumentError, Certificates, Progress, validate
from certus.core.claim import Claim
from certus.core.kinds import text
from certus.core.progress import silent
from certus.evaluation.block import Work
from certus.evaluation.source import code_of, source_hash, version
from certus.graph import Graph
from certus.threats import NormBall


class Certifies(Protocol):
    """What is asked of a certifier (`certus.certifiers.Certifier`): a proof, an attack or a statistic.

    block is how many inputs are handled together; gives_radius says whether one run gives a radius
    that is valid for every eps up to it.
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

    def claim(self, threat: str) -> Claim:
        """What the answers claim; the threat as text of JSON."""


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
        if not hasattr(self.threat, "to_json"):
            raise ArgumentError(
                f"threat must be one such as certus.Linf(0.1), got {type(self.threat).__name__}"
            )

        size, given = len(self.data.x_test), self.threat.inputs
        if given not in (None, size):
            raise ArgumentError(f"the threat is given for {given} inputs, the data has {size}")

    @property
    def _ball(self) -> NormBall | None:
        """The threat as a ball of one size; None where it has no single size."""
        one = isinstance(self.threat, NormBall) and torch.as_tensor(self.threat.eps).numel() == 1
        return self.threat if one else None

    @property
    def size(self) -> float:
        """The threat's eps; 1, the threat as it is, where it has no single size."""
        return 1.0 if self._ball is None else float(self._ball.eps)

    @property
    def eps(self) -> float | None:
        """`size`; None where the certifier gives a radius by itself."""
        return None if self.certifier.gives_radius and self._ball is not None else self.size

    @property
    def question(self) -> Any:
        """The threat that the certifier is asked about: eps 0 where it gives a radius by itself.

        Otherwise its verdict would depend on an eps that is no part of the key, and a radius below
        that eps would count as nothing.
        """
        if self.eps is not None:
            return self.threat
        return type(self.threat)(0.0, self.threat.clip)

    @property
    def norm(self) -> str:
        """The threat's norm, followed by a hash where it has no single size."""
        if self._ball is not None:
            return self.threat.norm
        return f"{self.threat.norm}:{hashlib.sha256(text(self.threat.to_json()).encode()).hexdigest()[:8]}"

    @cached_property
    def claim(self) -> Claim:
        """What all rows of the job have in common. Raises ArgumentError where settings cannot be told."""
        threat = self.threat.to_json()
        return self.certifier.claim(text(threat | {"eps": None} if self.eps is None else threat))

    @cached_property
    def data_hash(self) -> str:
        """Fingerprint of the data, computed once."""
        return self.data.fingerprint()

    @property
    def _parts(self) -> tuple[nn.Module, ...]:
        """Modules whose code makes the outputs; the fingerprint of a graph holds its operations itself."""
        original = getattr(self.model, "original", self.model)
        if isinstance(self.model, Graph) or not isinstance(original, nn.Module):
            return ()
        return tuple(original.modules())

    @property
    def key(self) -> str:
        """Hash of all that the rows depend on: claim, weights, data, seed and what computes them."""
        parts = {
            "claim": asdict(self.claim),
            "model": self.model_hash,
            "data": self.data_hash,
            "seed": self.seed,
            "code": code_of(self.certifier, self.threat, *self._parts),
        }
        return hashlib.sha256(text(parts).encode()).hexdigest()[:16]

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
            claim=self.claim,
            question=self.question,
            norm=self.norm,
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
            **asdict(self.claim),
            "norm": self.norm,
            "eps": self.eps,
            "seed": self.seed,
            "versions": json.dumps(versions, sort_keys=True),
            "model_hash": self.model_hash,
            "data_hash": self.data_hash,
            "card": json.dumps(self.card, sort_keys=True, default=str),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
