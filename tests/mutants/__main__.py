"""`python -m tests.mutants [PART OF A FILE'S NAME ...]`: every mutant must be killed by its tests."""

import argparse
import compileall
import gc
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.table import SOURCE, Mutant, mutants
from tests.mutants.trial import Outcome, Trial, trials

_FIRST_LIMIT = 300.0  # seconds for tests on the sources as they are
_PATIENCE = 5.0  # as many times longer may they take on a mutant
_LEAST_LIMIT = 60.0
_WORDS = {"failed": "killed", "hung": "killed (hung)", "passed": "SURVIVED"}


def main() -> int:
    """0 where all were killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help="only mutants of files whose name holds one of these"
    )
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    every = [m for m in mutants() if not given.parts or any(p in m.file for p in given.parts)]
    chosen = [mutant for mutant in every if not mutant.equivalent]
    if not chosen:
        parser.error("no mutant of such a file")
    _load()
    with tempfile.TemporaryDirectory(prefix="certus-mutants-") as work:
        pristine = Path(work) / "pristine"
        shutil.copytree(SOURCE, pristine, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(pristine, quiet=2)
        healthy = _healthy(chosen, pristine, Path(work), given.jobs)
        if healthy is None:
            return 1
        bad = _killed(chosen, healthy, pristine, Path(work), given.jobs)
    _say(
        f"{len(chosen) - len(bad)} of {len(chosen)} mutants killed, "
        f"{len(every) - len(chosen)} more are equivalent"
    )
    for outcome in bad:
        assert outcome.trial.mutant is not None
        _say(f"{outcome.kind}: {outcome.trial.mutant.name}: {outcome.trial.mutant.why}")
    return 1 if bad else 0


def _load() -> None:
    """What tests need of others, once for all processes; nothing of Certus itself."""
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    import pytest  # noqa: F401
    import scipy.optimize
    import scipy.sparse
    import scipy.special
    import scipy.stats  # noqa: F401
    import torch

    # the first export loads a thousand modules
    torch.export.export(torch.nn.Linear(1, 1).eval(), (torch.zeros(2, 1),), strict=False)
    gc.freeze()


def _healthy(
    chosen: Sequence[Mutant], pristine: Path, work: Path, jobs: int
) -> dict[tuple[str, ...], float] | None:
    """Seconds that each selection of tests takes; None where one is red without any change."""
    selections = list(dict.fromkeys(mutant.selection for mutant in chosen))
    todo = [Trial(tests, None, _FIRST_LIMIT) for tests in selections]
    seconds: dict[tuple[str, ...], float] = {}
    healthy = True
    for outcome in _followed(todo, "unchanged", pristine, work, jobs):
        seconds[outcome.trial.tests] = outcome.seconds
        if outcome.kind != "passed":
            healthy = False
            _say(
                f"red without a change ({outcome.kind}): {' '.join(outcome.trial.tests)}\n"
                f"    {outcome.detail}"
            )
    return seconds if healthy else None


def _killed(
    chosen: Sequence[Mutant],
    seconds: dict[tuple[str, ...], float],
    pristine: Path,
    work: Path,
    jobs: int,
) -> list[Outcome]:
    """Outcomes of the mutants that were not killed."""
    todo = [
        Trial(m.selection, m, max(_LEAST_LIMIT, _PATIENCE * seconds[m.selection])) for m in chosen
    ]
    found = list(_followed(todo, "mutant", pristine, work, jobs))
    counts = Counter(outcome.kind for outcome in found)
    if counts["hung"]:
        _say(f"{counts['hung']} hung: a test that ends would be better")
    return [outcome for outcome in found if outcome.kind not in ("failed", "hung")]


def _followed(
    todo: Sequence[Trial], what: str, pristine: Path, work: Path, jobs: int
) -> Iterator[Outcome]:
    """Outcomes, each with a line of progress."""
    start = time.monotonic()
    for done, outcome in enumerate(trials(todo, pristine, work, jobs), 1):
        left = (time.monotonic() - start) / done * (len(todo) - done)
        mutant = outcome.trial.mutant
        told = outcome.kind if mutant is None else _WORDS.get(outcome.kind, outcome.kind.upper())
        name = " ".join(outcome.trial.tests) if mutant is None else mutant.name
        _say(
            f"{what} {done}/{len(todo)} ({left:.0f} s left) {outcome.seconds:.1f} s "
            f"{told}: {name}" + (f"\n    {outcome.detail}" if outcome.detail else "")
        )
        yield outcome


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
