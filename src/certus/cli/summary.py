"""What `certify` and `attack` print of their rows."""

from collections.abc import Sequence
from typing import Any

from certus.certifiers import AttackCertifier, Certifier, SmoothingCertifier
from certus.cli.progress import output
from certus.evaluation import confidence_of
from certus.evaluation.metrics import (
    Figure,
    average_certified_radius,
    clean_accuracy,
    curve,
    reach,
    smoothed,
)
from certus.threats import NormBall

Records = list[dict[str, Any]]
_WHOLE = ("l0", "l0-pixels", "patch")


def summarise(rows: Records, method: Any, threat: NormBall, asked: bool) -> None:
    """What was found at the threat; of radii without one that was asked for, at a few of them."""
    n, who, seconds = len(rows), _who(method), sum(row["seconds"] for row in rows)
    radii = isinstance(method, Certifier) and method.norm is not None and not asked
    title = f"{threat.norm} radii" if radii else _spelled(threat, float(threat.eps))
    parts = [_accuracy(rows)]
    if not isinstance(method, AttackCertifier) and not radii:
        parts.append(f"certified {_share(rows, float(threat.eps))}; {_kind(rows)})")
    if radii:
        average = average_certified_radius(rows).value
        parts.append(f"average certified radius {average:.4g} ({_kind(rows)})")
    if not smoothed(rows[0]):
        fallen = [r for r in rows if r["verdict"] == "falsified" or r["reason"] == "misclassified"]
        parts.append(f"counterexamples {len(fallen)}")
    parts.append(f"{seconds / n * 1000:.3g} ms per input")
    lines = [f"{title} by {who} on {n} inputs: {', '.join(parts)}"]
    if radii:
        found = nice_radii(max(reach(row) for row in rows), threat.norm)
        lines += [f"certified at {_spelled(threat, r)}: {_share(rows, r)})" for r in found]
    output().print("\n".join(lines), soft_wrap=True, highlight=False)


def nice_radii(largest: float, norm: str) -> Sequence[float]:
    """2 to 4 round radii in equal steps up to the largest one; fewer where a norm counts up to 3."""
    if not 0 < largest < float("inf"):
        return ()
    steps = [
        float(f"{step}e{power}")
        for power in range(-12, 13)
        for step in ((1, 2, 5) if norm in _WHOLE else (1, 2.5, 5))
    ]
    least = 1.0 if norm in _WHOLE else 0.0
    step = max([least, *(s for s in steps if s <= largest / 2)])
    return [] if not step else [float(f"{step * k:.6g}") for k in range(1, int(largest / step) + 1)]


def _who(method: Any) -> str:
    if isinstance(method, SmoothingCertifier):
        return f"{method.name} with {method.noise!r}"
    return str(method.name)


def _spelled(threat: NormBall, eps: float) -> str:
    return f"{threat.norm}:{eps:.6g}"


def _accuracy(rows: Records) -> str:
    """Of the network; of a smoothed classifier an abstention is a mistake, and no clean accuracy."""
    figure = clean_accuracy(rows).value
    if not smoothed(rows[0]):
        return f"clean {figure:.2%}"
    text = f"smoothed accuracy {figure:.2%}"
    if min(map(confidence_of, rows)) == 1:  # which class all copies vote for is known
        return text
    return f"{text}, abstained {sum(row['prediction'] < 0 for row in rows) / len(rows):.2%}"


def _share(rows: Records, eps: float) -> str:
    """The share certified at eps and its interval, a bracket left open."""
    found = curve(rows, [eps])
    figure = Figure(found.accuracy[0], found.n[0], found.low[0], found.high[0])
    return f"{figure.value:.2%} (95% {figure.low:.2%} to {figure.high:.2%}"


def _kind(rows: Records) -> str:
    confidence = min(map(confidence_of, rows))
    if confidence == 1:
        return "proof"
    text = f"{confidence:g}"
    return f"each with confidence {text if text != '1' else f'1 - {1 - confidence:.2g}'}"
