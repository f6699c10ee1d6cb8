"""How many samples each input gets: rounds of ranges, refilled as inputs are settled."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from certus.smoothing.draws import Stream
from certus.smoothing.engine import Engine
from certus.smoothing.noise import Noise
from certus.smoothing.piece import Piece
from certus.smoothing.rules import Judgement, Path, Rule

ROUND = 2**15  # rows of a round: enough to keep every thread busy between two looks


@dataclass(eq=False)
class Settled:
    """One input on its way to a judgement."""

    stream: Stream
    chosen: int
    uniform: float
    taken: list[int] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)
    judgement: Judgement | None = None

    @property
    def path(self) -> Path:
        """What a rule sees."""
        return Path(np.array(self.taken), np.stack(self.counts), self.chosen, self.uniform)

    def evidence(self) -> dict[str, Any]:
        """All that the judgement rests on; the counts of an earlier look only where it is that look."""
        assert self.judgement is not None
        look = self.judgement.look or self.samples
        earlier = [] if look == self.samples else self.counts[self.taken.index(look)].tolist()
        return {
            "class": self.chosen,
            "n": self.samples,
            "counts": self.counts[-1].tolist(),
            "look": look,
            **({"look_counts": earlier} if earlier else {}),
            "uniform": self.uniform,
            "probability": float(self.judgement.lower),
            "runner_up": float(self.judgement.upper),
        }

    @property
    def samples(self) -> int:
        """Taken so far."""
        return self.taken[-1] if self.taken else 0

    def look(self, at: int, new: np.ndarray, rule: Rule, noise: Noise, alpha: float) -> bool:
        """Take note of new counts [K]; whether the rule is content."""
        self.counts.append(new + self.counts[-1] if self.counts else new)
        self.taken.append(at)
        self.judgement = rule.judge(self.path, noise, alpha)
        return self.judgement is not None


def estimate(
    engine: Engine,
    inputs: Sequence[Settled],
    rule: Rule,
    noise: Noise,
    alpha: float,
    report: Callable[[int], None],
) -> None:
    """Sample until the rule has judged every input; report gets samples done, n for a settled input."""
    looks, place, open_ = rule.looks(), [0] * len(inputs), list(range(len(inputs)))
    together = len({one.stream for one in inputs}) == 1  # draws are shared, so all go side by side
    finished = 0
    while open_:
        active = [*open_] if together else _window(open_, inputs, looks, place)
        before = finished + sum(inputs[b].samples for b in open_)
        pieces = _pieces(active, inputs, looks, place)
        counts = engine.tally(pieces, _added(report, before)).numpy()
        for b in active:
            if inputs[b].look(looks[place[b]], counts[b], rule, noise, alpha):
                open_.remove(b)
                finished += rule.n
            place[b] += 1
        report(finished + sum(inputs[b].samples for b in open_))


def _window(
    open_: Sequence[int], inputs: Sequence[Settled], looks: Sequence[int], place: Sequence[int]
) -> list[int]:
    """The inputs that are sampled now: enough for a round."""
    rows, active = 0, []
    for b in open_:
        if rows >= ROUND:
            break
        active.append(b)
        rows += looks[place[b]] - inputs[b].samples
    return active


def _pieces(
    active: Sequence[int], inputs: Sequence[Settled], looks: Sequence[int], place: Sequence[int]
) -> list[Piece]:
    return merged((inputs[b].stream, inputs[b].samples, looks[place[b]], b) for b in active)


def merged(ranges: Iterable[tuple[Stream | None, int, int, int]]) -> list[Piece]:
    """One piece for all inputs that take the same samples (from, to) of the same stream."""
    groups: dict[tuple[Stream | None, int, int], list[int]] = {}
    for stream, start, stop, b in ranges:
        groups.setdefault((stream, start, stop), []).append(b)
    return [Piece(stream, start, stop, tuple(own)) for (stream, start, stop), own in groups.items()]


def _added(report: Callable[[int], None], base: int) -> Callable[[int], None]:
    return lambda rows: report(base + rows)
