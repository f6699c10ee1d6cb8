"""Evaluate: model x data x certifier x threat -> rows in a ledger, resumable at every block."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby

from certus.core import Progress
from certus.core.claim import ATTACK
from certus.core.progress import silent
from certus.evaluation.block import Blocks, Row
from certus.evaluation.job import Job
from certus.evaluation.ledger import Ledger
from certus.evaluation.metrics import canonical, reach
from certus.evaluation.pool import InProcess, Pool


def evaluate(
    job: Job, ledger: Ledger, progress: Progress = silent, pool: Pool | None = None
) -> list[Row]:
    """Rows of the inputs that the job asks for, by index; those in the ledger are not computed again.

    Inputs go to the certifier in blocks aligned to multiples of its block size, with their
    positions in the test split as ids, and every block is stored in one transaction as soon as it
    is finished. A block that lacks an input is computed anew with all its inputs, so the rows
    (except `seconds`) are bitwise those of a run that was never interrupted.

    pool says where blocks are computed (default: one after the other in this process). For methods
    that count classes of noisy copies, rows are bitwise the same with any pool. Those that rest on
    bounds may differ by rounding where a worker's operations have another number of threads than
    those of the process that they are compared with; each is as sound as the other.

    The note of progress counts what is certified at the job's threat, also where rows hold radii; at
    eps 0 these count as `radius > 0`. Of an attack it counts what is broken.

    Raises what the certifier, the pool and the ledger raise; finished blocks stay.
    """
    key, wanted = job.key, job.wanted()
    ledger.add_run(job.run())
    present, asked = ledger.done(key), set(wanted)
    finished = ledger.rows(key)
    word, counts = _counted(job)
    hits = sum(counts(row) for row in finished if row["index"] in asked)
    count = len(asked & present)
    progress(count, len(wanted), f"{word} {hits}/{count}")
    blocks = Blocks(job.data, list(_batches(asked, present, job.certifier.block)))

    def within(done: int, total: int, note: str = "") -> None:
        """A part of the block in progress counts as that part of its inputs."""
        part = int(job.certifier.block * done / max(total, 1))
        said = f"{word} {hits}/{count}" if total else note  # no block has begun: the pool says why
        progress(min(count + part, len(wanted)), len(wanted), said)

    with closing((pool or InProcess()).compute(job.work(), blocks, within)) as computed:
        for rows in computed:
            ledger.append(rows)
            fresh = [row for row in rows if row["index"] in asked - present]
            hits += sum(map(counts, fresh))
            count += len(fresh)
            progress(count, len(wanted), f"{word} {hits}/{count}")
    return [row for row in ledger.rows(key) if row["index"] in asked]


def _counted(job: Job) -> tuple[str, Callable[[Row], bool]]:
    """What the progress note counts, in a word, and whether a row is one of it."""
    if job.claim.kind == ATTACK:
        return "broken", lambda row: row["verdict"] == "falsified"
    eps = canonical(job.size)
    radii = job.eps is None and eps == 0.0
    return "radius > 0:" if radii else "certified", lambda row: reach(row) >= eps


def _batches(asked: set[int], present: set[int], block: int) -> Iterator[list[int]]:
    """The blocks with an input still to do: all inputs of each, asked for now or stored before."""
    lacking = {i // block for i in asked - present}
    members = sorted(i for i in asked | present if i // block in lacking)
    for _, batch in groupby(members, lambda i: i // block):
        yield list(batch)
