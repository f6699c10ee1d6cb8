"""Rows that answer a job but were computed by other code, and so are not taken for its own."""

from certus.evaluation.job import Job
from certus.evaluation.ledger import Ledger

_ASKED = (
    "model_hash",
    "data_hash",
    "kind",
    "subject",
    "threat",
    "method",
    "settings",
    "alpha",
    "seed",
)
"""What a job's key depends on, but for the code of Certus."""


def outdated(job: Job, ledger: Ledger) -> int:
    """How many of the job's inputs have a row by another version of Certus in the ledger, and none by this.

    `evaluate` computes these anew; a caller may say why. Raises what the job and the ledger raise.
    """
    asked = job.run()
    lacking, others = set(job.wanted()) - ledger.done(job.key), set[int]()
    for run in ledger.runs():
        if all(run[name] == asked[name] for name in _ASKED):
            others |= ledger.done(run["run"])
    return len(lacking & others)
