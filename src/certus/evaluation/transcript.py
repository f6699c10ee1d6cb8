"""Transcripts: what a smoothing certificate rests on, and whether it proves the radius that a row claims."""

import json
import math
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import torch

from certus.core import FileError
from certus.core.random import derive
from certus.evaluation.metrics import certifies
from certus.evaluation.spelling import Record, made, noise_of, rule_of, why_unknown
from certus.smoothing.derandomized import Derandomized, Windows
from certus.smoothing.noise import GeneralGaussian, Noise, Truncated, converted, convertible
from certus.smoothing.noise.doubled import doubled_radius
from certus.smoothing.rules import Path, Rule
from certus.smoothing.smoothed import COIN
from certus.smoothing.statistics import lower_bound

_SLACK = 1e-9  # relative; other builds of the same functions differ by less
_LARGEST = 2**25  # values of an input that is looked at

_SECOND = {kind.__name__: kind for kind in (GeneralGaussian, Truncated)}

PROVED, UNCHECKED, WRONG = "proved", "unchecked", "wrong"


@dataclass(frozen=True)
class Audit:
    """What the counts of a row say of its claim: `state` PROVED, UNCHECKED or WRONG, and why."""

    state: str
    why: str = ""


class _UnknownError(Exception):
    """A transcript that neither proves nor contradicts anything, and why."""


@dataclass(frozen=True)
class _Proof:
    """What a transcript proves: a radius, at least and at most, in `norm`, but for a chance of alpha."""

    least: float
    most: float
    norm: str
    alpha: float
    shape: tuple[int, ...] | None

    def towards(self, norm: str) -> tuple[float, float]:
        """least and most in another norm, for all values of the input; of one value where it has no shape."""
        own = np.array([self.least, self.most])
        least, most = converted(own, self.norm, norm, math.prod(self.shape or ())).tolist()
        return least, most


def evidence_of(row: Record) -> dict[str, Any]:
    """The transcript of a row, {} where it has none; FileError where it is not a JSON object."""
    text = row.get("evidence", "")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FileError(f"the evidence of input {row.get('index')} is damaged: {text[:60]!r}")
    return found


def reproduced(record: Record) -> tuple[float, float] | None:
    """The radius that the counts of a transcript prove, at least and at most (the noise's norm, input units).

    Found anew from the noise, the rule, alpha, the counts of all classes and, where a set of copies
    depends on it, the input's shape. The two differ only in transcripts of old, of rules that look
    several times: the counts of an earlier look were not kept. There the first rests on the last counts
    alone, the second on the best counts that could have led to them. None where noise or rule is not
    known here, or where the transcript holds too little. Raises ValueError (also ArgumentError),
    LookupError, TypeError, ArithmeticError or RuntimeError where it contradicts itself.
    """
    try:
        found = _proof(record)
    except _UnknownError:
        return None
    return found.least, found.most


def audit(row: Record) -> Audit:
    """Whether the counts that a smoothing row holds prove its radius, class and confidence.

    WRONG where they prove less, and where they contradict each other or cannot be read; UNCHECKED where
    they were not kept, or say too little about the noise, rule or input. A row that certifies nothing
    claims nothing.
    """
    if not certifies(row):
        return Audit(PROVED)
    try:
        record = evidence_of(row)
        if "counts" not in record:
            raise _UnknownError("its counts were not kept")
        _compare(row, record, _proof(record))
    except _UnknownError as unknown:
        return Audit(UNCHECKED, str(unknown))
    except KeyError as missing:
        return Audit(WRONG, f"it lacks {missing}")
    except (FileError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError) as error:
        return Audit(WRONG, str(error))
    return Audit(PROVED)


def _compare(row: Record, record: Record, proof: _Proof) -> None:
    """ValueError where a row claims more than its proof, _UnknownError where that cannot be told."""
    if math.isnan(row["radius"]) and not convertible(proof.norm, row["norm"]):
        raise _UnknownError(f"a radius in {proof.norm} is none in {row['norm']}")
    if record["id"] != row["index"]:
        raise ValueError(f"its samples are those of input {str(record['id'])[:20]}")
    least, most = proof.towards(row["norm"])
    if row["prediction"] != record["class"]:
        raise ValueError(f"its samples chose class {record['class']}")
    spent = proof.alpha * (1 - _SLACK) - math.ulp(1.0)
    if not (1.0 - row["confidence"] >= spent and (proof.alpha == 0 or row["confidence"] < 1)):
        raise ValueError(f"its confidence is that of another alpha than {proof.alpha:g}")
    if row.get("eps") is not None:
        raise ValueError(f"it claims eps {row['eps']:.6g}, but its samples prove a radius")
    if not row["radius"] <= most * (1 + _SLACK):
        raise ValueError(f"it claims {row['radius']:.6g}, its counts prove {most:.6g}")
    if row["norm"] != proof.norm and proof.shape is None:
        raise _UnknownError(f"it was converted from {proof.norm}, and its input's shape not kept")
    if row["radius"] > least * (1 + _SLACK):
        raise _UnknownError("it may rest on an earlier look, whose counts were not kept")


def _proof(record: Record) -> _Proof:
    noise = noise_of(record)
    if noise is None:
        raise _UnknownError(why_unknown(record.get("noise"), "noise"))
    shape = _shape(record, noise)
    counts, chosen = tally(record["counts"], record["n"]), index(record["class"])
    if not 0 <= chosen < len(counts):
        raise ValueError("its class is not among the counted ones")
    if isinstance(noise, Derandomized):
        own = _of_copies(noise, counts, chosen, shape)
        return _Proof(own, own, noise.norm, 0.0, shape)
    if "second" in record:
        least = most = _of_two_laws(record, noise, counts)
    else:
        least, most = _of_looks(record, noise, counts)
    return _Proof(least, most, noise.norm, float(record["alpha"]), shape)


def _shape(record: Record, noise: Noise | Derandomized) -> tuple[int, ...] | None:
    """The input's shape, which the noise must take; None where it was not kept and is not needed."""
    if "shape" not in record:
        if isinstance(noise, Windows):
            raise _UnknownError(
                f"copies of {noise!r} depend on the input's shape, which was not kept"
            )
        return None
    shape = tuple(index(size) for size in record["shape"])
    if not shape or min(shape) < 1:
        raise ValueError(f"its input's shape is {shape}")
    if math.prod(shape) > _LARGEST:
        raise _UnknownError("its input is larger than any that is checked")
    noise.check(torch.zeros(1).expand(1, *shape))  # zeros lie on every grid
    return shape


def tally(counts: Any, taken: Any) -> np.ndarray:
    """Counts of the classes [K], which must add up to the samples taken; else ValueError or TypeError."""
    found = np.array(counts)
    sound = found.ndim == 1 and found.dtype.kind == "i" and len(found) > 1 and found.min() >= 0
    if not sound or sum(found.tolist()) != index(taken):
        raise ValueError("its counts do not add up to its samples")
    return found


def _of_copies(
    noise: Derandomized, counts: np.ndarray, chosen: int, shape: tuple[int, ...] | None
) -> float:
    if noise.copies(shape or ()) != counts.sum() or int(counts.argmax()) != chosen:
        raise ValueError("its counts are not those of all copies")
    return float(noise.proven(counts[None], shape or ())[0])


def _of_two_laws(record: Record, first: Noise, counts: np.ndarray) -> float:
    """The radius of `DoubleSampling`, which spends half of alpha under each law."""
    second, chosen = made(record["second"], _SECOND), index(record["class"])
    if second is None:
        raise _UnknownError(why_unknown(record["second"], "noise"))
    if not isinstance(first, GeneralGaussian):
        raise ValueError(f"nothing is known about two laws of which {first!r} is the first")
    others = tally(record["second_counts"], record["n2"])
    if len(others) != len(counts):
        raise ValueError("its two laws have other classes")
    lower, other = (
        float(lower_bound(int(own[chosen]), int(own.sum()), float(record["alpha"]) / 2))
        for own in (counts, others)
    )
    return doubled_radius(first, second, lower, other) if lower > 0.5 else 0.0


def _of_looks(record: Record, noise: Noise, counts: np.ndarray) -> tuple[float, float]:
    """The radius of the record's rule from the last counts and, where it was kept, the look it rests on."""
    rule, taken = rule_of(record), index(record["n"])
    if rule is None:
        raise _UnknownError(why_unknown(record.get("rule"), "rule"))
    looks = [at for at in rule.looks() if at <= taken]
    if not looks or looks[-1] != taken:
        raise ValueError(f"its rule does not look after {taken} samples")
    look = index(record.get("look", taken))
    if look != taken:
        early = tally(record["look_counts"], look)
        if look not in looks or len(early) != len(counts) or (early > counts).any():
            raise ValueError(f"its counts after {look} and {taken} samples contradict each other")
        if _judged(record, noise, rule, [look], early[None]) is not None:
            raise ValueError(f"its rule would have stopped after {look} samples")
        both = _radius(record, noise, rule, [look, taken], np.stack([early, counts]))
        return both, both
    least = _radius(record, noise, rule, [taken], counts[None])
    if "look" in record:
        return least, least
    return least, _radius(record, noise, rule, looks, _best(record, looks, counts))


def _best(record: Record, looks: list[int], counts: np.ndarray) -> np.ndarray:
    """Counts at these looks that lead to the last ones, with as many hits at the earlier ones as can be."""
    chosen, at = index(record["class"]), np.array(looks)
    tally = np.zeros((len(at), len(counts)), dtype=np.int64)
    tally[:, chosen] = np.minimum(counts[chosen], at)
    tally[:, chosen - 1] = at - tally[:, chosen]
    tally[-1] = counts
    return tally


def _radius(record: Record, noise: Noise, rule: Rule, looks: list[int], tally: np.ndarray) -> float:
    found = _judged(record, noise, rule, looks, tally)
    if found is None:
        raise ValueError(f"its rule would not have stopped after {looks[-1]} samples")
    return found


def _judged(
    record: Record, noise: Noise, rule: Rule, looks: list[int], tally: np.ndarray
) -> float | None:
    """The radius that the rule finds where it saw these counts [L, K]; None where it goes on."""
    uniform = derive(index(record["seed"]), index(record["id"]), COIN) / 2.0**63
    path = Path(np.array(looks), tally, index(record["class"]), uniform)
    found = rule.judge(path, noise, float(record["alpha"]))
    return None if found is None else float(noise.radius(found.lower, found.upper))
