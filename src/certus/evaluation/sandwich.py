"""Sandwich: certificates below, counterexamples above; where they cross, one of them is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import betainc

from certus.core import ContradictionError
from certus.core.claim import EXACT, NETWORK, same_subject
from certus.evaluation.claim import weakest
from certus.evaluation.metrics import (
    UNTOLD,
    Row,
    asked_at,
    attacking,
    canonical,
    certifies,
    clip_of,
    correct,
    group,
    reach,
)

IMPROBABLE = 1e-6


@dataclass(frozen=True)
class Layer:
    """How many of n inputs are certified, exactly decided and still standing at one eps.

    The inputs are those that incomplete methods, exact ones and attacks were all run on, as far as there
    are any of each. certified counts inputs with a certificate of an incomplete method, exact those with
    any certificate (None where exact methods are left out), attacked those that are correct and that
    nothing falsified: certified <= exact <= attacked. decided counts inputs whose answer is settled
    either way.
    """

    model: str
    data: str
    norm: str
    eps: float
    n: int
    certified: int
    exact: int | None
    attacked: int
    decided: int


@dataclass(frozen=True)
class Statistical:
    """Certificates of one statistical run against attacks on the same smoothed classifier.

    Of `tested` certificates (inputs that were attacked within their radius), `broken` were
    contradicted; tail is the exact probability of at least so many if every one fails independently
    with probability 1 - confidence.
    """

    model: str
    method: str
    run: str
    tested: int
    broken: int
    confidence: float
    tail: float


@dataclass(frozen=True)
class Sandwich:
    """The result of a check that found no contradiction; compared counts pairs of rows."""

    compared: int
    layers: tuple[Layer, ...]
    statistical: tuple[Statistical, ...]


def check(rows: Sequence[Row], runs: Sequence[dict[str, Any]] = ()) -> Sandwich:
    """Compare every certificate with every counterexample for the same input.

    A proof (confidence 1, certified to r) and a counterexample at eps <= r in the same norm
    contradict; a clean input that is misclassified is a counterexample at eps 0. Rows are compared where
    they speak of one function (`same_subject`), in a clip of which the counterexample's is part.
    Confidences are the smaller of row and transcript. Statistical claims raise only where the
    number of contradictions has probability < 1e-6 under the stated confidence. Where exact methods
    ran on fewer inputs than others, a layer without them, about more inputs, comes before the one with
    them. With `runs`, rows are compared only where weights and data are the same; without, models are told
    apart by name. Raises ContradictionError naming model, input, methods
    and numbers.
    """
    known, rows = {run["run"]: run for run in runs}, weakest(rows)
    falls = group(filter(_falsified, rows), lambda row: _input(row, known))
    pairs: list[tuple[Row, list[Row]]] = []
    for row in rows:
        if certifies(row) and not correct(row):
            raise ContradictionError(_contradiction(row, row))
        if reach(row) >= 0:
            against = [f for f in falls.get(_input(row, known), []) if _comparable(row, f)]
            pairs.append((row, against))
    for row, against in pairs:
        for fall in against:
            if row["confidence"] >= 1 and fall["confidence"] >= 1 and _level(fall) <= reach(row):
                raise ContradictionError(_contradiction(row, fall))
    return Sandwich(
        compared=sum(len(against) for _, against in pairs),
        layers=_layers(rows, known),
        statistical=_statistical(rows, pairs, known),
    )


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), exact through the incomplete beta function."""
    return 1.0 if k <= 0 else float(betainc(k, n - k + 1, p))


def _statistical(
    rows: Sequence[Row], pairs: list[tuple[Row, list[Row]]], known: dict[str, Any]
) -> tuple[Statistical, ...]:
    """Count contradictions of claims that may fail, and raise where there are too many."""
    attacks = group(
        (r for r in rows if attacking(r) or _falsified(r)), lambda row: _input(row, known)
    )
    found = []
    unsure = [(row, against) for row, against in pairs if _uncertain(row, against)]
    for run, part in group([row for row, _ in unsure], lambda row: row["run"]).items():
        tested = [r for r in part if _tested(r, attacks.get(_input(r, known), []))]
        broken = [
            row
            for row, against in unsure
            if row["run"] == run and any(_level(f) <= reach(row) for f in against)
        ]
        if not tested:
            continue
        failing = max(_failing(row, attacks.get(_input(row, known), [])) for row in tested)
        tail = binomial_tail(len(broken), len(tested), failing)
        first = tested[0]
        line = Statistical(
            first["model"], first["method"], run, len(tested), len(broken), 1 - failing, tail
        )
        if tail < IMPROBABLE:
            raise ContradictionError(
                f"{line.broken} of {line.tested} certificates of {line.method} on {line.model} "
                f"are contradicted by attacks (first: input {broken[0]['index']}); at confidence "
                f"{line.confidence:g} that has probability {tail:.1e}, so one of them is wrong"
            )
        found.append(line)
    return tuple(found)


def _uncertain(row: Row, against: list[Row]) -> bool:
    return row["confidence"] < 1 or any(fall["confidence"] < 1 for fall in against)


def _tested(row: Row, attacks: list[Row]) -> bool:
    return any(_level(a) <= reach(row) and _comparable(row, a) for a in attacks)


def _failing(row: Row, attacks: list[Row]) -> float:
    """Probability that the certificate, or one of the attacks' own predictions, is wrong."""
    own = sum(1 - a["confidence"] for a in attacks if _comparable(row, a))
    return min(1.0, 1 - row["confidence"] + own)


def _layers(rows: Sequence[Row], known: dict[str, Any]) -> tuple[Layer, ...]:
    """Counts at every eps of the base classifiers (proofs only, so every order is a theorem)."""
    found = []
    proofs = [row for row in rows if row["confidence"] >= 1 and row["subject"] == NETWORK]
    for part in group(proofs, lambda row: (*_classifier(row, known), str(clip_of(row)))).values():
        kinds = group(part, lambda row: row["kind"])
        for eps in sorted({canonical(row["eps"]) for row in part if row["eps"] is not None}):
            found += _layers_at(part, kinds, eps)
    return tuple(found)


def _layers_at(part: list[Row], kinds: dict[str, list[Row]], eps: float) -> list[Layer]:
    """The layer of the inputs that every kind was run on; before it that without exact methods, if larger."""
    asked = {kind: asked_at(rows, eps, attack=attacking(rows[0])) for kind, rows in kinds.items()}
    others = [inputs for kind, inputs in asked.items() if kind != EXACT]
    wide = set.intersection(*others) if others else set()
    shared = set.intersection(*asked.values())
    found = []
    if EXACT in kinds and len(wide) > len(shared):
        without = [row for row in part if row["kind"] != EXACT]
        found.append(_layer(without, eps, wide))
    return [*found, _layer(part, eps, shared)] if shared else found


def _layer(part: list[Row], eps: float, inputs: set[int]) -> Layer:
    here = [row for row in part if row["index"] in inputs]
    proven = [row for row in here if reach(row) >= eps]
    certified = {row["index"] for row in proven if row["kind"] != EXACT}
    exact = {row["index"] for row in proven}
    fallen = {row["index"] for row in here if _falsified(row) and _level(row) <= eps}
    first = part[0]
    return Layer(
        **{key: first[key] for key in ("model", "data", "norm")},
        eps=eps,
        n=len(inputs),
        certified=len(certified),
        exact=len(exact) if any(row["kind"] == EXACT for row in part) else None,
        attacked=len(inputs - fallen),
        decided=len(exact | fallen),
    )


def _falsified(row: Row) -> bool:
    """A replayed counterexample, or a clean input that a deterministic method sees misclassified.

    An abstention is not a counterexample: the smoothed classifier's own class is unknown there.
    """
    wrong = not correct(row) and row["prediction"] >= 0 and row["confidence"] >= 1
    return row["verdict"] == "falsified" or wrong


def _level(row: Row) -> float:
    """The eps of an attack: 0 for a misclassified clean input, inf where the row has none."""
    if row["reason"] == "misclassified" or (not correct(row) and row["prediction"] >= 0):
        return 0.0
    return float("inf") if row["eps"] is None else canonical(row["eps"])


def _classifier(row: Row, known: dict[str, Any]) -> tuple[Any, ...]:
    run = known.get(row["run"], {})
    hashes = (run.get("model_hash"), run.get("data_hash"))
    return (row["model"], row["data"], row["norm"], *hashes)


def _input(row: Row, known: dict[str, Any]) -> tuple[Any, ...]:
    return (*_classifier(row, known), row["index"])


def _comparable(proof: Row, fall: Row) -> bool:
    """Whether both speak of one function and the counterexample lies in the proof's clip."""
    if not same_subject(proof["subject"], fall["subject"]):
        return False
    outer, inner = clip_of(proof), clip_of(fall)
    if UNTOLD in (outer, inner) or outer is None or outer == inner:
        return True
    return inner is not None and bool(outer[0] <= inner[0] and inner[1] <= outer[1])


def _contradiction(proof: Row, fall: Row) -> str:
    return (
        f"model {proof['model']}, input {proof['index']} of {proof['data']}: {proof['method']} "
        f"certifies {proof['norm']} radius {proof['radius'] if proof is fall else reach(proof):g}, "
        f"but {fall['method']} falsifies it at eps {_level(fall):g}; one of the two is wrong, "
        "so nothing is reported"
    )


def describe(found: Iterable[Layer]) -> list[str]:
    """One line for each layer: `small l2:0.5 certified 10 <= exact 12 <= attacked 15 of 20`."""
    return [
        f"{at.model} {at.norm}:{at.eps:g} certified {at.certified} <= "
        + (f"exact {at.exact} <= " if at.exact is not None else "")
        + f"attacked {at.attacked} of {at.n}"
        for at in found
    ]
