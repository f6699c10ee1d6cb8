"""Evaluate: model x data x certifier x threat -> rows in a ledger, resumable at every block."""

from collections.abc import Iterator
from typing import Any

import torch

from certus.core import ArgumentError, Progress
from certus.core.progress import silent
from certus.evaluation.job import Job
from certus.evaluation.ledger import Ledger

Row = dict[str, Any]


def evaluate(job: Job, ledger: Ledger, progress: Progress = silent) -> list[Row]:
    """Rows of the inputs that the job asks for; those already in the ledger are not computed again.

    Inputs go to the certifier in blocks aligned to multiples of its block size, with their
    positions in the test split as ids, and every block is stored in one transaction. A block that
    lacks an input is computed anew with all its inputs, so the rows (except `seconds`) are bitwise
    those of a run that was never interrupted. Raises what the certifier and the ledger raise;
    finished blocks stay.
    """
    key, wanted = job.key, job.wanted()
    ledger.add_run(job.run())
    present, asked = ledger.done(key), set(wanted)
    finished = ledger.rows(key)
    word, verdict = _counted(job)
    hits = sum(r["verdict"] == verdict for r in finished if r["index"] in asked)
    count = len(asked & present)
    progress(count, len(wanted), f"{word} {hits}/{count}")
    for batch in _blocks(asked, present, job.certifier.block):
        rows = _rows(job, key, batch)
        ledger.append(rows)
        fresh = [row for row in rows if row["index"] in asked - present]
        hits += sum(row["verdict"] == verdict for row in fresh)
        count += len(fresh)
        progress(count, len(wanted), f"{word} {hits}/{count}")
    return [row for row in ledger.rows(key) if row["index"] in asked]


def _counted(job: Job) -> tuple[str, str]:
    """What the progress note counts: certificates, or what an attack broke."""
    attack = job.certifier.describe().startswith("attack ")
    return ("broken", "falsified") if attack else ("certified", "verified")


def _blocks(asked: set[int], present: set[int], block: int) -> Iterator[list[int]]:
    """The blocks with an input still to do: all inputs of each, asked for now or stored before."""
    for number in sorted({i // block for i in asked - present}):
        yield sorted(i for i in asked | present if i // block == number)


def _rows(job: Job, key: str, batch: list[int]) -> list[Row]:
    """One call of the certifier on the inputs of a batch (positions in the test split)."""
    at = torch.tensor(batch)
    # A Graph says where and in which precision it computes; others take the data as it is.
    place = {
        "device": getattr(job.model, "device", None),
        "dtype": getattr(job.model, "dtype", None),
    }
    x = job.data.x_test[at].to(**{k: v for k, v in place.items() if v is not None})
    y = job.data.y_test[at].to(x.device)
    found = job.certifier(job.model, x, y, job.question, ids=batch)
    if len(found) != len(batch):
        raise ArgumentError(
            f"{job.certifier.name} gave {len(found)} answers for {len(batch)} inputs"
        )
    return [
        {
            "run": key,
            "model": job.model_name,
            "data": job.data.name,
            "index": index,
            "label": label,
            **{name: answer[name] for name in _ANSWER},
            "method": job.certifier.name,
            "norm": job.threat.norm,
            "eps": job.eps,
        }
        for index, label, answer in zip(batch, y.tolist(), found.to_rows(), strict=True)
    ]


_ANSWER = ("prediction", "verdict", "reason", "radius", "margin", "confidence", "seconds")
