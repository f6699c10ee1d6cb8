"""Smoothed: what a module answers under noise, with predictions and certificates."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import Answer, ArgumentError, Certificates, Progress, Reason, Verdict, validate
from certus.core.claim import smoothed_by
from certus.core.kinds import to_json
from certus.core.progress import silent
from certus.core.random import derive, generator
from certus.core.replay import refuse_training
from certus.core.results import statistical
from certus.graph import Graph
from certus.smoothing.checks import keys_of, placed, refuse_unrepeatable
from certus.smoothing.derandomized import Derandomized
from certus.smoothing.draws import ATTACK, ESTIMATE, PREDICT, SELECT, Stream
from certus.smoothing.engine import Engine, checked
from certus.smoothing.noise import Noise
from certus.smoothing.response import response
from certus.smoothing.rules import Fixed, Rule
from certus.smoothing.sampling import Settled, estimate, merged
from certus.smoothing.statistics import agreement_p_value, level
from certus.smoothing.twin import twin_of

_BUFFER = 2**26  # bytes of rows in one call of the module
COIN = 5  # key of the one uniform draw of an input, apart from all streams of noise


@dataclass(frozen=True, eq=False)
class Smoothed:
    """g(x) = the class that `module` gives most often to noisy copies of x.

    module is any callable [N, *rows] -> logits [N, num_classes] that treats the rows of a batch
    independently and gives the same answer every time; an nn.Module must be in evaluation mode. It is called
    by the thread that asks alone, as it may keep things from call to call. On a CPU several threads call a
    Graph or a module of torch's own layers, and in place of another module its `graph`, or one captured
    here for 65,536 rows or more, if that gives the module's answers (`twin_of`).
    Inputs are moved to the device and dtype of an nn.Module or Graph, otherwise the module gets theirs.
    noise is a `Noise`, or a `Derandomized` set of copies, whose certificates are proofs.

    Draws depend on (seed, input id, stage, block of samples) only, so that neither `batch` (most rows in
    one call of the module, fewer where they would take more than 64 MiB) nor the order or the split of
    the inputs, nor the number of threads changes an input's draws. Inputs with the same id share them,
    which is sound for each by itself; `shared` gives all inputs the same ones, which saves drawing them
    anew, and where module is a Graph (which may be taken apart) the first linear layers' response to
    them is computed only once. Draws are made on the CPU; they repeat on the same build of torch.

    Guarantees are statistical and about g, not about `module`: see `predict` and `certify`. They
    assume that nobody chose the inputs knowing this seed's selection and estimation noise.
    """

    module: Callable[[Tensor], Tensor]
    noise: Noise | Derandomized
    num_classes: int
    seed: int = field(default=0, kw_only=True)
    batch: int = field(default=256, kw_only=True)
    shared: bool = field(default=False, kw_only=True)
    graph: Graph | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what can never be used: ArgumentError for arguments, ModelError for the module."""
        if not callable(self.module):
            raise ArgumentError(f"module must be callable, got {type(self.module).__name__}")
        if not isinstance(self.noise, Noise | Derandomized):
            raise ArgumentError(f"noise must be a Noise such as Gaussian(0.25), got {self.noise!r}")
        validate.count(self.num_classes, "num_classes", 2)
        validate.count(self.seed, "seed", 0)
        validate.count(self.batch, "batch")
        if self.graph is not None and not self._own_graph:
            raise ArgumentError(
                f"graph must be the Graph of module or None, got {self.graph!r:.80}"
            )
        refuse_training(self.module)

    @property
    def _own_graph(self) -> bool:
        """Whether the graph is the module, or was captured from this very module."""
        return isinstance(self.graph, Graph) and self.module in (self.graph, self.graph.original)

    def predict(
        self, x: Tensor, n: int = 1000, alpha: float = 1e-3, ids: Sequence[int] | None = None
    ) -> Tensor:
        """Class of each input under noise [B] int64, -1 where the samples do not settle it.

        x is [B, *shape], n the samples for each input, ids the keys of their noise (0..B-1 where
        None). An answer other than -1 differs from g(x) with chance at most alpha for each input
        (Cohen, Rosenfeld and Kolter 2019, PREDICT); of a Derandomized set it is g(x), and n, alpha and
        ids have no part in it. Raises ArgumentError and ModelError.
        """
        validate.probability(alpha, "alpha")
        counts = self.counts(x, n, ids, PREDICT)
        if isinstance(self.noise, Derandomized):
            return _first(counts)
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
        rule: Rule | None = None,
    ) -> Certificates:
        """Predict and certify each input of x [B, *shape] (Cohen et al. 2019, CERTIFY).

        n0 samples choose a class, at most n fresh ones bound its probability. A `rule` says when to stop
        and how to bound; it brings n0 and n of its own, and by default is Fixed(n0=n0, n=n).
        VERIFIED: g gives `prediction` everywhere within `radius` (norm of the noise, input units),
        wrong with chance at most alpha for each input. It says nothing about labels: compare the
        prediction. Otherwise UNKNOWN (ABSTAINED) with prediction -1 and radius 0. Copies of a
        Derandomized set are all evaluated and the certificate is a proof; n0, n, alpha, ids and rule have
        no part in it. progress counts samples; an input that is settled early counts as n. evidence[b]
        says all that the certificate rests on. Raises ArgumentError (also where n0 > n) and ModelError.
        """
        started = time.perf_counter()
        if isinstance(self.noise, Derandomized):
            return self._proofs(x, ids, started, progress)
        level(alpha)
        rule = Fixed(n0=n0, n=n) if rule is None else rule
        if not isinstance(rule, Rule):
            raise ArgumentError(f"rule must be a Rule such as Fixed(n=1000), got {rule!r}")
        x, keys = self._ready(x, ids)
        noise, total = self.noise, len(x) * (rule.n0 + rule.n)
        first = self._streams(keys, SELECT)
        with self._engine(x, first, total) as engine:
            chosen = engine.tally(
                merged((stream, 0, rule.n0, b) for b, stream in enumerate(first)),
                lambda rows: progress(rows, total, "selection"),
            ).argmax(1)
            inputs = [
                Settled(stream, int(c), self._coin(key))
                for stream, c, key in zip(self._streams(keys, ESTIMATE), chosen, keys, strict=True)
            ]
            before = len(x) * rule.n0
            estimate(
                engine,
                inputs,
                rule,
                noise,
                alpha,
                lambda rows: progress(before + rows, total, "estimation"),
            )
        settings = {"noise": to_json(noise), "rule": to_json(rule), "n0": rule.n0, "alpha": alpha}
        settings |= {"seed": self.seed, "shared": self.shared, "shape": list(x.shape[1:])}
        evidence = [
            settings | {"id": key} | found.evidence()
            for key, found in zip(keys, inputs, strict=True)
        ]
        radius = noise.radius(
            np.array([record["probability"] for record in evidence]),
            np.array([record["runner_up"] for record in evidence]),
        )
        return self._certificates(chosen, radius, statistical(alpha), started, evidence)

    def counts(
        self,
        x: Tensor,
        n: int,
        ids: Sequence[int] | None = None,
        stage: int = PREDICT,
        progress: Progress = silent,
    ) -> Tensor:
        """How often each class wins among n noisy copies of each input: int64 [B, K] on the CPU.

        stage (1 to 15) names the stream of noise: counts of the same stage share their samples. Of a
        Derandomized set all copies are counted. Calls the module about B * n / batch times. Raises
        ArgumentError and ModelError.
        """
        validate.count(n, "n")
        if validate.count(stage, "stage") > 15:
            raise ArgumentError(f"stage must be at most 15, got {stage}")
        x, keys = self._ready(x, ids)
        streams: list[Stream | None] = [*self._streams(keys, stage)]
        if isinstance(self.noise, Derandomized):
            streams, n = [None] * len(x), self.noise.copies(tuple(x.shape[1:]))
        total = len(x) * n
        with self._engine(x, streams, total) as engine:
            return engine.tally(
                merged((stream, 0, n, b) for b, stream in enumerate(streams)),
                lambda rows: progress(rows, total),
            )

    def expected(self, x: Tensor, samples: int, ids: Sequence[int] | None = None) -> Tensor:
        """Log of the mean softmax under fixed noise [B, K], differentiable in x and in the module.

        For attacking or training the smoothed classifier (Salman et al. 2019, SmoothAdv); it
        certifies nothing. The noise depends on (seed, id, samples); no certificate uses it.
        """
        validate.count(samples, "samples")
        if not (isinstance(self.noise, Noise) and self.noise.additive):
            raise ArgumentError(f"expected needs additive noise, {self.noise!r} is not")
        x = placed(self.module, x)
        drawn = torch.empty(
            (samples, *x.shape[1:]), dtype=torch.promote_types(x.dtype, torch.float32)
        )
        noise = []
        for stream in self._streams(keys_of(ids, len(x)), ATTACK):
            stream.fill(drawn, 0, torch.Generator())
            noise.append(drawn.to(x, copy=True))
        rows = (x[:, None] + torch.stack(noise)).flatten(0, 1)
        logits = torch.cat(
            [
                checked(self.module(part), len(part), self.num_classes)
                for part in rows.split(self.batch)
            ]
        )
        log = logits.log_softmax(1).view(len(x), samples, self.num_classes)
        return log.logsumexp(1) - float(np.log(samples))

    def _proofs(
        self, x: Tensor, ids: Sequence[int] | None, started: float, progress: Progress
    ) -> Certificates:
        """Certificates from all copies of a Derandomized set."""
        assert isinstance(self.noise, Derandomized)
        counts = self.counts(x, 1, ids, progress=progress)
        keys, shape = keys_of(ids, len(x)), tuple(x.shape[1:])
        settings: dict[str, Any] = {"noise": to_json(self.noise), "n": self.noise.copies(shape)}
        settings |= {"shape": list(shape)}
        evidence = [
            settings | {"id": key, "class": int(c), "counts": own}
            for key, c, own in zip(keys, _first(counts), counts.tolist(), strict=True)
        ]
        radius = self.noise.proven(counts.numpy(), shape)
        return self._certificates(_first(counts), radius, 1.0, started, evidence)

    def _certificates(
        self,
        chosen: Tensor,
        radius: np.ndarray,
        confidence: float,
        started: float,
        evidence: list[dict[str, Any]],
    ) -> Certificates:
        """Turn chosen classes [B] and their radii [B] into answers."""
        found = torch.from_numpy(np.asarray(radius, dtype=np.float64))
        settled = (found > 0) & torch.isfinite(found)
        known = isinstance(self.noise, Derandomized)  # which class g gives, whatever its radius
        why = Reason.LOOSE if known else Reason.ABSTAINED
        answers = [
            Answer(
                verdict=Verdict.VERIFIED if s else Verdict.UNKNOWN,
                reason=None if s else why,
                radius=r if s else 0.0,
                prediction=c if s or known else -1,
                evidence=record,
            )
            for s, r, c, record in zip(
                settled.tolist(), found.tolist(), chosen.tolist(), evidence, strict=True
            )
        ]
        return Certificates.of(
            answers,
            method="smoothing",
            threat=self.noise.norm,
            seconds=time.perf_counter() - started,
            confidence=confidence,
            subject=smoothed_by(self.noise),
        )

    def _engine(self, x: Tensor, streams: Sequence[Stream | None], work: int) -> Engine:
        """What evaluates `work` copies of x, of these streams first."""
        cut = None
        exact = x.device.type == "cpu" and x.dtype.itemsize >= 4  # as draws are, which it is given
        if self.shared and exact and isinstance(self.module, Graph):
            additive = isinstance(self.noise, Noise) and self.noise.additive
            cut = response(self.module) if additive else None
        row = prod(self.noise.rows_shape(tuple(x.shape[1:]))) * 4
        batch = min(self.batch, max(1, _BUFFER // row))  # a large image alone fills a cache
        twin = twin_of(self.module, self.graph, self.noise, x, streams, work)
        called = self.module if twin is None else twin
        return Engine(called, self.noise, self.num_classes, x, batch, cut, twin is not None)

    def _streams(self, keys: list[int], stage: int) -> list[Stream]:
        """The draws of every input; of a Derandomized set there are none."""
        if isinstance(self.noise, Derandomized):
            return []
        if self.shared:
            return [Stream.of(self.noise, self.seed, 0, stage)] * len(keys)
        return [Stream.of(self.noise, self.seed, key, stage) for key in keys]

    def _coin(self, key: int) -> float:
        """A uniform number from [0, 1) that only this input's randomized bound uses."""
        return derive(self.seed, key, COIN) / 2.0**63

    def _ready(self, x: Tensor, ids: Sequence[int] | None) -> tuple[Tensor, list[int]]:
        """Inputs as the module takes them, and the keys of their noise, after all checks."""
        x = placed(self.module, x.detach() if isinstance(x, Tensor) else x)
        keys = keys_of(ids, len(x))
        self.noise.check(x)
        probe = generator(self.seed, 0, ATTACK, 2)
        refuse_unrepeatable(self.module, self.noise, self.num_classes, x, probe)
        return x, keys


def _first(counts: Tensor) -> Tensor:
    """The class of most counts, of equal ones the first."""
    return torch.from_numpy(counts.numpy().argmax(1))
