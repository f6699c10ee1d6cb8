"""Blocks of inputs, and the work on each of them: all that a worker needs to know."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from certus.core import ArgumentError, Progress
from certus.core.claim import Claim
from certus.core.progress import silent
from certus.evaluation.portable import portable
from certus.evaluation.source import build
from certus.evaluation.witness import WITNESS, packed

Row = dict[str, Any]

_ANSWER = ("prediction", "verdict", "reason", "radius", "margin", "confidence", "seconds")
_CLAIM = ("method", "kind", "subject", "threat")


@dataclass(frozen=True, eq=False)
class Block:
    """Inputs handled together: positions in the test split, x [B, *shape], labels y [B]."""

    indices: tuple[int, ...]
    x: Tensor
    y: Tensor

    def __repr__(self) -> str:
        """Which inputs, in words."""
        first, last = self.indices[0], self.indices[-1]
        if len(self.indices) == 1:
            return f"input {first}"
        if last - first + 1 == len(self.indices):
            return f"inputs {first} to {last}"
        return f"inputs {', '.join(map(str, self.indices))}"


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of a data set, each cut out when it is asked for."""

    data: Any
    batches: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Block:
        """Block number 0 to len - 1."""
        indices = tuple(self.batches[number])
        at = torch.tensor(indices)
        return Block(indices, self.data.x_test[at], self.data.y_test[at])

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))


@dataclass(frozen=True)
class Precision:
    """Settings of torch that numbers depend on and that belong to a process."""

    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    matmul: str = field(default_factory=torch.get_float32_matmul_precision)

    def set(self) -> None:
        """Make them those of this process."""
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.matmul)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Within the block they are those of this process."""
        before = Precision()
        self.set()
        try:
            yield
        finally:
            before.set()


def _radius_of(answer: Row) -> Row:
    """What an answer at eps 0 says of no threat: a radius, or nothing."""
    proven = answer["verdict"] == "verified"
    return {"verdict": "", "radius": answer["radius"] if proven else 0.0}


@dataclass(frozen=True, eq=False, kw_only=True)
class Work:
    """What a job does to each of its blocks, without the data: sent once to every worker.

    run is the job's key, claim what its rows have in common, question the threat that the certifier is
    asked about. Rows depend on the block
    alone (and on the seeds in the certifier), not on where or when it is computed.
    """

    run: str
    model: Any
    model_name: str
    data_name: str
    certifier: Any
    claim: Claim
    question: Any
    norm: str
    eps: float | None
    build: str = field(default_factory=build)
    precision: Precision = field(default_factory=Precision)

    def portable(self) -> "Work":
        """The same work with the model in a form that can be sent to other processes."""
        return replace(self, model=portable(self.model))

    def rows(self, block: Block, progress: Progress = silent) -> list[Row]:
        """One row for each input of the block, with its witness; raises what the certifier raises.

        ArgumentError where this process runs another Certus or torch than the one that made the work.
        """
        if self.build != build():
            raise ArgumentError(
                f"a worker runs {build()}, the main process {self.build}; install the same for all, or "
                "start again where the code has changed meanwhile"
            )
        # A Graph says where and in which precision it computes; others take the data as it is.
        place = {name: getattr(self.model, name, None) for name in ("device", "dtype")}
        x = block.x.to(**{k: v for k, v in place.items() if v is not None})
        y = block.y.to(x.device)
        with self.precision.here():
            found = self.certifier(
                self.model,
                x,
                y,
                self.question.at(block.indices),
                ids=list(block.indices),
                progress=progress,
            )
        if len(found) != len(block.indices):
            raise ArgumentError(
                f"{self.certifier.name} gave {len(found)} answers for {len(block.indices)} inputs"
            )
        if found.subject != self.claim.subject:
            raise ArgumentError(
                f"{self.certifier.name} answers about {found.subject:.80}, but claims to speak of "
                f"{self.claim.subject:.80}"
            )
        return [
            {
                "run": self.run,
                "model": self.model_name,
                "data": self.data_name,
                "index": index,
                "label": label,
                **{name: answer[name] for name in _ANSWER},
                **({} if self.eps is not None else _radius_of(answer)),
                **{name: getattr(self.claim, name) for name in _CLAIM},
                "norm": self.norm,
                "eps": self.eps,
                "evidence": json.dumps(evidence) if evidence else "",
                WITNESS: None if witness is None else packed(witness),
            }
            for index, label, answer, evidence, witness in zip(
                block.indices,
                y.tolist(),
                found.to_rows(),
                found.evidence or [{}] * len(found),
                found.witness,
                strict=True,
            )
        ]
