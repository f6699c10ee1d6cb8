"""Numbers and results in plain words: every formatter shows a dash for what is not known."""

import math
from collections.abc import Sequence
from typing import Any

from certus.report.data import Line, ReportData, Row, number

DASH = "\u2013"
NORMS = {"linf": "l∞", "l2": "l2", "l1": "l1", "l0": "l0", "patch": "patch", "box": "box"}


def percent(value: Any, digits: int = 1) -> str:
    """A fraction as a percentage; a dash for NaN or None."""
    x = number(value)
    return f"{100 * x:.{digits}f}%" if math.isfinite(x) else DASH


def figure(value: Any, digits: int = 3) -> str:
    """A number with a few significant digits; a dash for NaN, None or infinity."""
    x = number(value)
    return f"{x:.{digits}g}" if math.isfinite(x) else DASH


def whole(value: Any) -> str:
    """A count with spaces between thousands; a dash where it is not known."""
    x = number(value)
    return f"{x:,.0f}".replace(",", "\u202f") if math.isfinite(x) else DASH


def seconds(value: Any) -> str:
    """A duration with a readable unit; a dash where it was not measured."""
    x = number(value)
    if not math.isfinite(x):
        return DASH
    if x < 1e-3:
        return f"{1e6 * x:.0f} µs"
    if x < 1:
        return f"{1e3 * x:.3g} ms"
    return f"{x:.3g} s" if x < 600 else f"{x / 60:.3g} min"


def interval(row: Row) -> str:
    """The 95% interval of a summary row; a dash where it has none."""
    low, high = number(row.get("low")), number(row.get("high"))
    if not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}%"


def confidence(value: Any) -> str:
    """`proof` for 1, otherwise the confidence of each single statistical certificate."""
    x = number(value)
    if not math.isfinite(x):
        return DASH
    if x == 1.0:
        return "proof"
    text = f"{100 * x:.6g}"
    return f"{text}% confidence" if text != "100" else f"confidence 1 - {1 - x:.2g}"


def norm(name: str) -> str:
    """A norm as people write it; of a threat without a single size its kind and the hash of the rest."""
    kind, _, rest = name.partition(":")
    return f"{NORMS.get(kind, kind)} {rest}".strip()


def threat(name: str, eps: Any) -> str:
    """What the adversary may do, as a clause."""
    name, _, own = name.partition(":")
    size = "a size of its own" if own else "r" if eps is None else figure(eps)
    clauses = {
        "linf": f"every input value may change by up to {size}",
        "l2": f"the Euclidean length of the change is at most {size}",
        "l1": f"the absolute changes add up to at most {size}",
        "l0": f"at most {size} input values may change, by any amount",
        "l0-pixels": f"at most {size} pixels may change, by any amount",
        "patch": f"one square of {size} x {size} pixels may change, by any amount",
        "box": "every input value may move within its given interval",
    }
    return clauses.get(name, f"the threat {name!r} of size {size}")


def attacked(row: Row) -> str:
    """Accuracy under attack, and of how many inputs where it is not of all n; a dash where none was."""
    return _of(row, "attack")


def gap(row: Row) -> str:
    """Attack accuracy minus certified accuracy of the same inputs, and how many where it is not all n."""
    return _of(row, "gap")


def _of(row: Row, name: str) -> str:
    text, count = percent(row[name]), row[f"{name}_n"]
    return text if text == DASH or count == row["n"] else f"{text} of {count}"


def inputs(lines: Sequence[Line]) -> str:
    """Of how many inputs the curves are, and whether of the same ones."""
    counts = {line.method: _range(line.n) for line in lines if line.n}
    if not counts:
        return ""
    alike = len({line.inputs for line in lines if line.n}) == 1
    if alike and len(set(counts.values())) == 1:
        return f"All curves: the same {next(iter(counts.values()))} inputs."
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"Inputs: {listed}. Compare curves of the same inputs only."


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def statistical(row: Row) -> bool:
    """Whether a summary row holds statistical certificates; an unknown confidence counts as one."""
    return number(row["confidence"]) != 1.0


def best(rows: list[Row]) -> Row | None:
    """The summary row with the highest certified accuracy; the faster one where two agree.

    Only rows over the most inputs compete: a few inputs are easily all certified. Of them those over the
    same inputs as most others do, the first where that is a tie.
    """
    known = [row for row in rows if math.isfinite(number(row["certified"]))]
    most = max((number(row["n"]) for row in known), default=0.0)
    known = [row for row in known if number(row["n"]) == most]
    alike: dict[Any, list[Row]] = {}
    for row in known:
        alike.setdefault((row.get("data"), row.get("inputs")), []).append(row)
    known = max(alike.values(), key=len, default=[])

    def rank(row: Row) -> tuple[float, float]:
        time = number(row.get("median_seconds"))
        return number(row["certified"]), -time if math.isfinite(time) else -math.inf

    return max(known, key=rank, default=None)


def headlines(data: ReportData) -> list[dict[str, Any]]:
    """For each norm and eps: the threat in words, the best proof and the best statistical certificate."""
    out = []
    for name in data.norms:
        rows = [row for row in data.summary if row["norm"] == name]
        proofs = [row for row in rows if not statistical(row)]
        claims = [row for row in rows if statistical(row)]
        eps = data.headline.get(name, rows[0]["eps"] if rows else None)
        eps = None if data.only_smoothed else eps
        out.append(
            {
                "norm": name,
                "eps": eps,
                "threat": threat(name, eps),
                "proof": best(proofs),
                "statistical": best(claims),
            }
        )
    return out


def counts(data: ReportData) -> dict[str, int]:
    """How many answers of each kind the rows hold, and on how many different inputs.

    radii are rows that are about no single threat, `above` those of them with a radius above 0.
    """
    verdicts = [str(row.get("verdict")) for row in data.rows]
    kinds = {kind: verdicts.count(kind) for kind in ("verified", "falsified", "unknown")}
    radii = [row for row in data.rows if row.get("verdict") == ""]
    kinds |= {"radii": len(radii), "above": sum(number(row["radius"]) > 0 for row in radii)}
    inputs = {(row.get("data"), row.get("index")) for row in data.rows}
    models = {row.get("model") for row in data.rows}
    return {**kinds, "answers": len(verdicts), "inputs": len(inputs), "models": len(models)}
