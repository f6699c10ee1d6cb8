"""Models x methods x eps: every certificate with the strongest attack beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from certus.attacks import PGD
from certus.certifiers import AttackCertifier, SmoothedAttackCertifier, SmoothingCertifier
from certus.cli.models import Loaded, Settings, card_dict
from certus.cli.progress import bar, say
from certus.core import ArgumentError, UnsupportedError
from certus.evaluation import InProcess, Job, Ledger, Pool, evaluate, outdated
from certus.evaluation.table import LEDGERS
from certus.smoothing import Noise
from certus.threats import NORMS, NormBall
from certus.zoo import Dataset

EXACT = ("milp", "auto")  # as dear as they are strong: run on fewer inputs


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What to compare: the eps grid of one norm, the methods, how many inputs, and where to compute."""

    norm: str
    eps: Sequence[float]
    methods: Sequence[str]
    limit: int | None = None
    every: int = 1
    exact_limit: int = 20
    settings: Settings = field(default_factory=Settings)
    attack: PGD = field(default_factory=lambda: PGD(steps=20, restarts=2))
    seed: int = 0
    pool: Pool = field(default_factory=InProcess)


def compare(model: Loaded, data: Dataset, plan: Comparison, ledger: Ledger) -> list[dict[str, Any]]:
    """Run every method of the plan and the attacks on one model; rows, old and new, of this plan.

    A method that does not fit the network or the threat is left out with one line that says so.
    """
    rows: list[dict[str, Any]] = []
    for method in plan.methods:
        certifier = plan.settings.build(method, model, plan.seed)
        limit = plan.limit
        if method in EXACT:
            limit = plan.exact_limit if limit is None else min(limit, plan.exact_limit)
        grid = [0.0] if certifier.gives_radius else [eps for eps in plan.eps if eps > 0]
        base = _job(model, data, certifier, plan, limit)
        try:
            rows += _sweep(base, grid, ledger, plan.pool, f"{method} on {model.name}")
        except UnsupportedError as error:
            say(f"{method} left out for {model.name} under {plan.norm}: {error}")
            continue
        if isinstance(certifier, SmoothingCertifier):
            rows += _smoothed_attack(base, certifier, plan, ledger, model.name)
    runner = AttackCertifier(attack=replace(plan.attack, seed=plan.seed))
    base = _job(model, data, runner, plan, plan.limit)
    sizes = [e for e in plan.eps if e > 0]
    return rows + _sweep(base, sizes, ledger, plan.pool, f"pgd on {model.name}")


def _smoothed_attack(
    base: Job, certifier: SmoothingCertifier, plan: Comparison, ledger: Ledger, name: str
) -> list[dict[str, Any]]:
    noise = certifier.noise
    if not (isinstance(noise, Noise) and noise.additive):
        return []  # there is no gradient through what is not added
    attack = SmoothedAttackCertifier(noise=noise, alpha=certifier.alpha, seed=certifier.seed + 1)
    limit = 64 if plan.limit is None else min(plan.limit, 64)
    job = replace(base, certifier=attack, limit=limit)
    sizes = [eps for eps in plan.eps if eps > 0]
    return _sweep(job, sizes, ledger, plan.pool, f"smoothed-pgd on {name}")


def _sweep(
    base: Job, grid: Sequence[float], ledger: Ledger, pool: Pool, title: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    jobs = [replace(base, threat=NORMS[base.threat.norm](eps, base.threat.clip)) for eps in grid]
    say_outdated(jobs, ledger)
    for eps, job in zip(grid, jobs, strict=True):
        shown = title if len(grid) == 1 else f"{title} at {eps:g}"
        with bar(shown) as progress:
            rows += evaluate(job, ledger, progress, pool)
    return rows


def _job(model: Loaded, data: Dataset, certifier: Any, plan: Comparison, limit: int | None) -> Job:
    threat = NORMS[plan.norm](0.0, data.clip)
    return replace(
        job_for(model, data, certifier, threat, plan.seed), limit=limit, every=plan.every
    )


def job_for(model: Loaded, data: Dataset, certifier: Any, threat: NormBall, seed: int) -> Job:
    """One evaluation of a loaded checkpoint, on the whole test split."""
    return Job(
        model=model.graph,
        model_name=model.name,
        model_hash=model.graph.fingerprint(),
        card=card_dict(model.card),
        data=data,
        certifier=certifier,
        threat=threat,
        seed=seed,
    )


def say_outdated(jobs: Sequence[Job], ledger: Ledger) -> None:
    """Say why rows that are there are computed anew, where that is so."""
    count = sum(outdated(job, ledger) for job in jobs)
    if count:
        say(
            f"{count} row{'s' if count > 1 else ''} by another version of Certus "
            f"in {ledger.path}: not reused, computed anew"
        )


def runs_of(rows: Sequence[dict[str, Any]], ledger: Ledger) -> list[dict[str, Any]]:
    """The runs that some rows belong to."""
    keys = {row["run"] for row in rows}
    return [run for run in ledger.runs() if run["run"] in keys]


def ledger_at(path: Path | None, beside: Path) -> Ledger:
    """The ledger to write to: the given file, or `ledger.sqlite` in a directory.

    Raises ArgumentError for a name by which `report` would not know a ledger.
    """
    target = path or beside / "ledger.sqlite"
    if target.suffix.lower() not in LEDGERS:
        raise ArgumentError(f"--ledger {target} must end in {' or '.join(LEDGERS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    return Ledger(target)
