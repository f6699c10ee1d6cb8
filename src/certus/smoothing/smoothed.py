"""Smoothed: what a module answers under noise, with predictions and certificates."""

import operator
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certus.core import (
    ArgumentError,
    Certificates,
    ModelError,
    Progress,
    Reason,
    Verdict,
    validate,
)
from certus.core.progress import silent
from certus.core.random import generator
from certus.smoothing.noise import Noise
from certus.smoothing.statistics import agreement_p_value, lower_bound

# Samples are drawn in blocks of this many, one generator each, so that no draw depends on `batch`.
BLOCK = 100
# Streams of noise that must stay apart. They (and block numbers) start at 1: a key that ends in
# zeros is the same key as its shorter form, which other parts of the library use.
SELECT, ESTIMATE, PREDICT, ATTACK = 1, 2, 3, 4


@dataclass(frozen=True, eq=False)
class Smoothed:
    """g(x) = the class that `module` gives most often to x + noise.

    module is any callable [N, *shape] -> logits [N, num_classes] that treats the rows of a batch
    independently and gives the same answer every time; an nn.Module must be in evaluation mode.
    Inputs are moved to the device and dtype of an nn.Module, otherwise the module gets theirs.

    Noise depends on (seed, input id, stage, block of samples) only, so that neither `batch` (most
    rows in one call of the module) nor the order or the split of the inputs changes an input's
    draws. Inputs with the same id share them, which is sound for each by itself. Draws are made on
    the CPU; they repeat on the same build of torch.

    Guarantees are statistical and about g, not about `module`: see `predict` and `certify`. They
    assume that nobody chose the inputs knowing this seed's selection and estimation noise.
    """

    module: Callable[[Tensor], Tensor]
    noise: Noise
    num_classes: int
    seed: int = field(default=0, kw_only=True)
    batch: int = field(default=1024, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what can never be used: ArgumentError for arguments, ModelError for the module."""
        if not callable(self.module):
            raise ArgumentError(f"module must be callable, got {type(self.module).__name__}")
        if not isinstance(self.noise, Noise):
            raise ArgumentError(f"noise must be a Noise such as Gaussian(0.25), got {self.noise!r}")
        validate.count(self.num_classes, "num_classes", 2)
        validate.count(self.seed, "seed", 0)
        validate.count(self.batch, "batch")
        _refuse_training(self.module)

    def predict(
        self, x: Tensor, n: int = 1000, alpha: float = 1e-3, ids: Sequence[int] | None = None
    ) -> Tensor:
        """Class of each input under noise [B] int64, -1 where the samples do not settle it.

        x is [B, *shape], n the samples for each input, ids the keys of their noise (0..B-1 where
        None). An answer other than -1 differs from g(x) with chance at most alpha for each input
        (Cohen, Rosenfeld and Kolter 2019, PREDICT). Raises ArgumentError and ModelError.
        """
        validate.probability(alpha, "alpha")
        counts = self.counts(x, n, ids, PREDICT)
        two, classes = counts.topk(2, dim=1)
        p_value = agreement_p_value(two[:, 0].numpy(), two[:, 1].numpy())
        return torch.where(torch.from_numpy(p_value <= alpha), classes[:, 0], -1)

    def certify(
        self,
        x: Tensor,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Certificates:
        """Predict and certify each input of x [B, *shape] (Cohen et al. 2019, CERTIFY).

        n0 samples choose a class, n fresh ones bound its probability from below at level alpha.
        VERIFIED: g gives `prediction` everywhere within `radius` (norm of the noise, input units),
        wrong with chance at most alpha for each input. It says nothing about labels: compare the
        prediction. Otherwise UNKNOWN (ABSTAINED) with prediction -1 and radius 0. progress counts
        samples. Raises ArgumentError (also where n0 > n) and ModelError.
        """
        started = time.perf_counter()
        validate.probability(alpha, "alpha")
        if validate.count(n0, "n0") > validate.count(n, "n"):
            raise ArgumentError(f"n0 ({n0}) must not exceed n ({n}): n0 only chooses the class")
        x, keys = self._ready(x, ids)
        before, total = len(x) * n0, len(x) * (n0 + n)
        select = _shifted(progress, 0, total, "selection")
        chosen = self._tally(x, n0, keys, SELECT, select).argmax(1)
        estimate = _shifted(progress, before, total, "estimation")
        counts = self._tally(x, n, keys, ESTIMATE, estimate)
        hits = counts.gather(1, chosen[:, None])[:, 0]
        settings = {"noise": repr(self.noise), "n0": n0, "n": n, "alpha": alpha, "seed": self.seed}
        evidence = [
            settings | {"id": key, "class": int(c), "count": int(k)}
            for key, c, k in zip(keys, chosen, hits, strict=True)
        ]
        probability = lower_bound(hits.numpy(), n, alpha)
        seconds = (time.perf_counter() - started) / len(x)
        return self._certificates(chosen, probability, 1.0 - alpha, seconds, evidence)

    def counts(
        self,
        x: Tensor,
        n: int,
        ids: Sequence[int] | None = None,
        stage: int = PREDICT,
        progress: Progress = silent,
    ) -> Tensor:
        """How often each class wins among n noisy copies of each input: int64 [B, K] on the CPU.

        stage >= 1 names the stream of noise: counts of the same stage share their samples. Calls
        the module about B * n / batch times. Raises ArgumentError and ModelError.
        """
        validate.count(n, "n")
        validate.count(stage, "stage")
        x, keys = self._ready(x, ids)
        return self._tally(x, n, keys, stage, progress)

    def expected(self, x: Tensor, samples: int, ids: Sequence[int] | None = None) -> Tensor:
        """Log of the mean softmax under fixed noise [B, K], differentiable in x and in the module.

        For attacking or training the smoothed classifier (Salman et al. 2019, SmoothAdv); it
        certifies nothing. The noise depends on (seed, id, samples); no certificate uses it.
        """
        validate.count(samples, "samples")
        x, keys = self._placed(x), _keys(ids, len(x))
        shape = (samples, *x.shape[1:])
        noise = torch.stack(
            [self.noise.sample(shape, generator(self.seed, i, ATTACK, 1), _drawn(x)) for i in keys]
        )
        rows = (x[:, None] + noise.to(x)).flatten(0, 1)
        logits = torch.cat([self._logits(part) for part in rows.split(self.batch)])
        log = logits.log_softmax(1).view(len(x), samples, self.num_classes)
        return log.logsumexp(1) - float(np.log(samples))

    def _certificates(
        self,
        chosen: Tensor,
        probability: np.ndarray,
        confidence: float,
        seconds: float,
        evidence: list[dict[str, Any]],
    ) -> Certificates:
        """Turn chosen classes [B] and lower bounds of their probabilities [B] into answers."""
        radius = torch.from_numpy(np.asarray(self.noise.radius(probability), dtype=np.float64))
        settled = (radius > 0) & torch.isfinite(radius)
        size = len(chosen)
        return Certificates(
            prediction=torch.where(settled, chosen, -1),
            verdict=[Verdict.VERIFIED if s else Verdict.UNKNOWN for s in settled],
            reason=[None if s else Reason.ABSTAINED for s in settled],
            radius=torch.where(settled, radius, 0.0),
            margin=torch.full((size,), float("nan"), dtype=torch.float64),
            method="smoothing",
            threat=self.noise.norm,
            confidence=confidence,
            seconds=torch.full((size,), seconds, dtype=torch.float64),
            witness=[None] * size,
            evidence=[
                record | {"probability": float(p)}
                for record, p in zip(evidence, probability, strict=True)
            ],
        )

    @torch.inference_mode()
    def _tally(self, x: Tensor, n: int, keys: list[int], stage: int, progress: Progress) -> Tensor:
        """Counts [B, K] of the winning classes; x is placed, everything is validated."""
        tally = torch.zeros(len(x) * self.num_classes, dtype=torch.int64)
        done = 0
        for rows, owner in self._noisy(x, n, keys, stage):
            for part, of in zip(rows.split(self.batch), owner.split(self.batch), strict=True):
                winner = self._logits(part).argmax(1).cpu()
                tally += torch.bincount(of * self.num_classes + winner, minlength=len(tally))
                done += len(part)
                progress(done, len(x) * n)
        return tally.view(len(x), self.num_classes)

    def _noisy(
        self, x: Tensor, n: int, keys: list[int], stage: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Noisy copies (rows, input of each row), n of every input, in one buffer that is reused.

        A block is always drawn in full, because a shorter draw would hold other numbers, and the
        next one overwrites what was drawn too much.
        """
        buffer = torch.empty((max(self.batch, BLOCK), *x.shape[1:]), dtype=_drawn(x))
        owner = torch.empty(len(buffer), dtype=torch.int64)
        local = x.to(device="cpu", dtype=buffer.dtype)
        used = 0
        for b, key in enumerate(keys):
            for start in range(0, n, BLOCK):
                if used + BLOCK > len(buffer):
                    yield buffer[:used].to(x), owner[:used]
                    used = 0
                block = buffer[used : used + BLOCK]
                self.noise.fill(block, generator(self.seed, key, stage, 1 + start // BLOCK))
                block += local[b]
                take = min(BLOCK, n - start)
                owner[used : used + take] = b
                used += take
        yield buffer[:used].to(x), owner[:used]

    def _ready(self, x: Tensor, ids: Sequence[int] | None) -> tuple[Tensor, list[int]]:
        """Inputs as the module takes them, and the keys of their noise, after all checks."""
        x = self._placed(x.detach() if isinstance(x, Tensor) else x)
        keys = _keys(ids, len(x))
        self._refuse_unrepeatable(x)
        return x, keys

    def _placed(self, x: Tensor) -> Tensor:
        """Check x and move it to the module's device and dtype, if that keeps every value."""
        x = validate.inputs(x)
        _refuse_training(self.module)
        if not isinstance(self.module, nn.Module):
            return x
        held = chain(self.module.parameters(), self.module.buffers())
        like = next((t for t in held if t.is_floating_point()), x)
        moved = x.to(like)
        if not torch.equal(moved.detach().to(x), x.detach()):
            raise ArgumentError(
                f"the module computes in {like.dtype} and inputs in {x.dtype} do not fit exactly; "
                "convert the inputs, so that the certificate is about them"
            )
        return moved

    @torch.inference_mode()
    def _refuse_unrepeatable(self, x: Tensor) -> None:
        """Two calls on the same rows must agree, and no row's logits may depend on other rows."""
        noise = self.noise.sample((8, *x.shape[1:]), generator(self.seed, 0, ATTACK, 2), _drawn(x))
        rows = noise.to(x) + x[:1]
        first, second = self._logits(rows.clone()), self._logits(rows.clone())
        if not torch.equal(first, second):
            raise ModelError(
                "the module is not deterministic: two calls on the same input differ; turn off "
                "dropout and other randomness inside it"
            )
        alone = self._logits(rows[:3].flip(0)).flip(0)
        room = torch.finfo(first.dtype).eps ** 0.5 * (1 + first.abs().max())
        if bool(((alone - first[:3]).abs() > room).any()):
            raise ModelError(
                "the module's answer for an input depends on the rest of the batch (batch "
                "statistics?); a certificate needs each row treated by itself"
            )

    def _logits(self, rows: Tensor) -> Tensor:
        logits = validate.logits(self.module(rows), len(rows))
        if logits.shape[1] != self.num_classes:
            raise ModelError(
                f"the module returns {logits.shape[1]} logits but num_classes is {self.num_classes}"
            )
        return logits


def _shifted(progress: Progress, before: int, total: int, note: str) -> Progress:
    """Report one stage as a part of the whole, with its name."""
    return lambda done, *_: progress(before + done, total, note)


def _drawn(x: Tensor) -> torch.dtype:
    """Dtype of the noise for x: at least float32, as half precision would coarsen the draws."""
    return torch.promote_types(x.dtype, torch.float32)


def _keys(ids: Sequence[int] | None, batch: int) -> list[int]:
    """One key of randomness for each input."""
    if ids is None:
        return list(range(batch))
    try:
        keys = [operator.index(i) for i in ids]
    except TypeError:
        raise ArgumentError("ids must be a list of integers, one for each input") from None
    if len(keys) != batch or min(keys) < 0:
        raise ArgumentError(
            f"ids must be {batch} integers >= 0, one for each input, got {ids!r:.80}"
        )
    return keys


def _refuse_training(module: object) -> None:
    """ModelError where any part of an nn.Module is in training mode."""
    if not isinstance(module, nn.Module):
        return
    for name, part in module.named_modules():
        if part.training:
            where = f"its part {name!r}" if name else "the module"
            raise ModelError(f"{where} is in training mode; call module.eval() first")
