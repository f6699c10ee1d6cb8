"""Segmentation: a class for every pixel, certified together or not given at all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, ModelError, Progress, validate
from certus.core.kinds import to_json
from certus.core.progress import silent
from certus.core.results import statistical
from certus.smoothing.draws import ESTIMATE, SELECT
from certus.smoothing.engine import Evaluator, Sink, Span
from certus.smoothing.outputs.sampled import Sampled, alike, groups, values
from certus.smoothing.statistics import anytime_p_value, holm, p_value


@dataclass(frozen=True, eq=False, kw_only=True)
class Segments:
    """Classes prediction [B, *pixels] int64, -1 where a pixel abstains.

    All others keep their class everywhere within `radius` (norm `threat`, input units), for each input
    together with chance `confidence`. p_values float64 [B, *pixels] are corrected for the number of
    pixels. An abstained pixel is never correct.
    """

    prediction: Tensor
    p_values: Tensor
    radius: float
    threat: str
    confidence: float
    evidence: list[dict[str, Any]]

    @property
    def certified(self) -> Tensor:
        """Share of the pixels with a class, float64 [B]."""
        return (self.prediction.flatten(1) >= 0).double().mean(1)


def bonferroni(p_values: np.ndarray) -> np.ndarray:
    """P values [m] times their number: simpler than Holm's, and never smaller."""
    return np.minimum(p_values * len(p_values), 1.0)


CORRECTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "holm": holm,
    "bonferroni": bonferroni,
}


@dataclass(frozen=True, eq=False)
class SmoothedSegmentation(Sampled):
    """g(x) = for every pixel the class that `module` gives most often to noisy copies of x.

    module is any callable [N, *rows] -> logits [N, K, *pixels]; the rest is as for `Sampled`. Any
    `Noise` will do.

    A pixel gets a class where that has probability above `threshold` (1/2 to 1) under noise, so all
    of them share the radius that noise.radius proves for it (Fischer, Baader and Vechev 2021,
    SegCertify). A threshold above 1/2 keeps pixels near a boundary between classes from costing the
    others their certificate: they abstain. The hypotheses "at most threshold", one a pixel, are tested
    by exact binomial tests and corrected by "holm" or "bonferroni", which hold under any dependence of
    the pixels.

    looks > 1 tests at so many times (n and its halves), by p values that are valid at all of them, and
    stops an input when a share of `enough` of its pixels is certified.
    """

    num_classes: int
    threshold: float = field(default=0.75, kw_only=True)
    correction: str = field(default="holm", kw_only=True)
    looks: int = field(default=1, kw_only=True)
    enough: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what `Sampled` refuses, thresholds that prove nothing, and unknown corrections."""
        super().__post_init__()
        validate.count(self.num_classes, "num_classes", 2)
        validate.count(self.looks, "looks")
        if not (isinstance(self.threshold, float) and 0.5 < self.threshold < 1):
            raise ArgumentError(f"threshold must lie in (0.5, 1), got {self.threshold!r}")
        if not (isinstance(self.enough, int | float) and 0 < self.enough <= 1):
            raise ArgumentError(f"enough must lie in (0, 1], got {self.enough!r}")
        if self.correction not in CORRECTIONS:
            names = " or ".join(CORRECTIONS)
            raise ArgumentError(f"correction must be {names}, got {self.correction!r}")

    def read(self, answers: object, rows: int) -> Tensor:
        """Logits [rows, K, *pixels], or ModelError."""
        found = values(answers, rows)
        if found.ndim < 3 or found.shape[1] != self.num_classes:
            got = ", ".join(map(str, found.shape))
            raise ModelError(
                f"the module must return logits [{rows}, {self.num_classes}, *pixels], got [{got}]"
            )
        return found

    @property
    def radius(self) -> float:
        """Radius of every certified pixel, in the noise's norm and input units."""
        return float(self.noise.radius(self.threshold))

    def certify(
        self,
        x: Tensor,
        n0: int = 100,
        n: int = 1000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Segments:
        """Classes for the pixels of each input of x [B, *shape], or abstention.

        n0 samples choose the classes, at most n fresh ones test them; alpha is spent on all pixels of
        an input together. Inputs are taken in groups whose counts [G, *pixels, K] int64 fit into
        memory, once for each thread. progress counts samples. Raises ArgumentError (also where n0 > n)
        and ModelError.
        """
        validate.probability(alpha, "alpha")
        if validate.count(n0, "n0") > validate.count(n, "n"):
            raise ArgumentError(f"n0 ({n0}) must not exceed n ({n}): n0 only chooses the classes")
        x, keys, like = self.ready(x, ids)
        tests: list[_Test] = []
        with self.evaluator(x, keys, SELECT, n0 + n) as evaluator:
            for inputs in groups(len(x), 8 * like.numel()):
                chosen = self._chosen(evaluator, keys, inputs, like, n0)
                some = [_Test(b, own) for b, own in zip(inputs, chosen, strict=True)]
                self._test(evaluator, keys, some, n, alpha, like)
                tests += some
                progress(len(tests) * (n0 + n), len(x) * (n0 + n))
        shape = (len(x), *like.shape[1:])
        corrected = torch.from_numpy(np.stack([test.corrected for test in tests])).view(shape)
        classes = torch.stack([test.chosen for test in tests]).view(shape)
        settings = {"noise": to_json(self.noise), "seed": self.seed, "n0": n0, "alpha": alpha}
        settings |= {"threshold": self.threshold, "correction": self.correction}
        return Segments(
            prediction=torch.where(corrected <= alpha, classes, -1),
            p_values=corrected,
            radius=self.radius,
            threat=self.noise.norm,
            confidence=statistical(alpha),
            evidence=[
                settings | {"id": key, "n": test.taken, "hits": test.hits.tolist()}
                for key, test in zip(keys, tests, strict=True)
            ],
        )

    def _chosen(
        self, evaluator: Evaluator, keys: Sequence[int], inputs: range, like: Tensor, n0: int
    ) -> Tensor:
        """The class of most selection samples for every pixel of some inputs, int64 [G, P]."""
        pieces = self.pieces(keys, inputs, SELECT, range(n0))
        kept = evaluator.run(pieces, partial(Votes, inputs, like))
        return torch.stack([votes.counts for votes in kept]).sum(0).argmax(2)

    def _test(
        self,
        evaluator: Evaluator,
        keys: Sequence[int],
        tests: Sequence["_Test"],
        n: int,
        alpha: float,
        like: Tensor,
    ) -> None:
        """Sample until each of these inputs is settled or has n samples."""
        open_, taken = list(tests), 0
        for look in sorted({-(-n // 2**halves) for halves in range(self.looks)}):
            pieces = self.pieces(keys, [test.b for test in open_], ESTIMATE, range(taken, look))
            chosen = {test.b: test.chosen for test in open_}
            kept = evaluator.run(pieces, partial(Hits, chosen, like))
            for test in open_:
                test.hits += sum(hits.counts[test.b].numpy() for hits in kept)
                test.taken = taken = look
                test.p_values = np.minimum(test.p_values, self._p_values(test))
                test.corrected = CORRECTIONS[self.correction](test.p_values)
            open_ = [test for test in open_ if (test.corrected <= alpha).mean() < self.enough]
            if not open_:
                return

    def _p_values(self, test: "_Test") -> np.ndarray:
        """Against "at most threshold"; valid at all looks where there are several."""
        rule = p_value if self.looks == 1 else anytime_p_value
        return rule(test.hits, test.taken, self.threshold)


class _Test:
    """The pixels of input b on the way to their certificates."""

    def __init__(self, b: int, chosen: Tensor) -> None:
        pixels = len(chosen)
        self.b, self.chosen, self.taken = b, chosen, 0
        self.hits = np.zeros(pixels, dtype=np.int64)
        self.p_values, self.corrected = np.ones(pixels), np.ones(pixels)


class Votes(Sink):
    """How often each class wins for each pixel: counts [G, P, K] int64 for a range of inputs."""

    def __init__(self, inputs: range, like: Tensor) -> None:
        self.first, self.shape = inputs.start, tuple(like.shape)
        self.counts = torch.zeros(len(inputs), like[0].numel(), len(like), dtype=torch.int64)

    def take(self, answers: object, owner: Tensor, spans: Sequence[Span]) -> None:
        """Count the largest logits."""
        _, pixels, classes = self.counts.shape
        own = torch.arange(pixels) * classes
        for b, winners in _winners(answers, self.shape, spans):
            found = torch.bincount((winners + own).flatten(), minlength=pixels * classes)
            self.counts[b - self.first] += found.view(pixels, classes)


class Hits(Sink):
    """How often the chosen class wins for each pixel: counts[b] [P] int64."""

    def __init__(self, chosen: Mapping[int, Tensor], like: Tensor) -> None:
        self.chosen, self.shape = chosen, tuple(like.shape)
        self.counts = {b: torch.zeros_like(own) for b, own in chosen.items()}

    def take(self, answers: object, owner: Tensor, spans: Sequence[Span]) -> None:
        """Count the answers that agree."""
        for b, winners in _winners(answers, self.shape, spans):
            self.counts[b] += (winners == self.chosen[b]).sum(0)


def _winners(
    answers: object, shape: tuple[int, ...], spans: Sequence[Span]
) -> Iterator[tuple[int, Tensor]]:
    """The input and the classes [size, P] of the pixels, for each span."""
    logits = alike(values(answers, sum(span.size for span in spans)), shape)
    classes = logits.argmax(1).flatten(1).cpu()
    sizes = [span.size for span in spans]
    for span, own in zip(spans, classes.split(sizes), strict=True):
        yield span.b, own
