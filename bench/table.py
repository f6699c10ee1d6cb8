"""Rows and sections of docs/benchmarks.md; rows of several runs complete one table."""

import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measure import Measured

HEAD = """\
| network | batch | method | Certus ms | peer ms | peer / Certus | limit ms | Certus / limit | forward ms \
| Certus MiB | peer MiB | mean margin, Certus | mean margin, peer | below peer by | measured |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""
_COLUMNS = HEAD.partition("\n")[0].count("|") - 1


@dataclass
class Row:
    """One case: both engines, the plain forward pass, and when it was measured (UTC)."""

    net: str
    batch: int
    method: str
    forward: Measured
    certus: Measured
    peer: Measured | None
    when: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from other rows: network, batch, method."""
        return self.net, str(self.batch), self.method

    @property
    def ratio(self) -> float:
        """How many times faster Certus is."""
        return _of(self.peer, "milliseconds") / self.certus.milliseconds

    @property
    def below(self) -> float:
        """The most by which a bound of Certus lies below the peer's, relative to max(1, |bound|).

        Negative where all of them lie above; a bound that only the peer has counts as infinite, one
        that the peer does not have counts as nothing.
        """
        if self.peer is None or self.peer.lower is None or self.certus.lower is None:
            return float("nan")
        ours, theirs = torch.tensor(self.certus.lower), torch.tensor(self.peer.lower)
        gap = (theirs - ours) / theirs.abs().clamp(min=1)
        gap = torch.where(ours.isfinite(), gap, float("inf"))[theirs.isfinite()]
        return float(gap.max()) if gap.numel() else float("nan")

    def line(self, rate: float) -> str:
        """One line of the table; rate is the machine's GFLOP/s."""
        limit = 2 * self.certus.multiply_adds / rate / 1e6
        cells = (
            *self.key,
            *(time_of(self.certus), time_of(self.peer), number(self.ratio)),
            *(number(limit), number(self.certus.milliseconds / limit)),
            number(self.forward.milliseconds),
            *(number(self.certus.peak), number(_of(self.peer, "peak"))),
            *(_mean(self.certus), _mean(self.peer)),
            "" if math.isnan(self.below) else f"{self.below:.1e}",
            self.when,
        )
        return f"| {' | '.join(cells)} |"


@dataclass
class Table:
    """The rows of a run, and of runs before it that the file at `path` holds; written row by row.

    order: names of networks and of methods, as rows are sorted. A row replaces one of the same network,
    batch and method.
    """

    path: Path | None
    order: tuple[list[str], list[str]]
    setting: dict[str, Any]
    machine: dict[str, Any]
    lines: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """GFLOP/s of the fastest matrix product."""
        return max(v for k, v in self.machine["rates"].items() if k.startswith("matmul"))

    def add(self, row: Row) -> str:
        """Put a row in its place and write the file; the row's line."""
        if self.path is not None:
            self.lines = rows_of(self.path, "bounds")  # another run may have added to it
        self.lines[row.key] = row.line(self.rate)
        if self.path is not None:
            write(self.path, self.text(), "bounds")
        return self.lines[row.key]

    def text(self) -> str:
        """The section: what was measured where, the rates, the table."""
        rows = [self.lines[key] for key in sorted(self.lines, key=self._place)]
        return "\n".join([*_about(self.setting, self.machine, self.rate), HEAD, *rows])

    def _place(self, key: tuple[str, ...]) -> tuple[int, int, int]:
        names, methods = self.order
        at = [k.index(v) if v in k else len(k) for k, v in ((names, key[0]), (methods, key[2]))]
        return at[0], int(key[1]), at[1]


def _about(setting: dict[str, Any], machine: dict[str, Any], rate: float) -> list[str]:
    heap = "kept (mallopt)" if setting["keep_heap"] else "as the system sets it"
    rates = ", ".join(f"{name}: {value:.0f}" for name, value in machine["rates"].items())
    return [
        f"The last run: {machine['processor']}, {machine['cores']} cores, {setting['threads']} threads, "
        f"torch {machine['torch']}; freed memory: {heap}. Medians; a call longer than "
        f"{setting['seconds']:g} s is measured once. `> {setting['limit']:g} s`: given up; `-`: not tried. "
        "MiB: the peak above what was resident before the first call. `measured`: when, in UTC; rows "
        "of different runs may have seen a machine of different speed, the columns of one row did not.",
        "",
        f"Its measured rates, GFLOP/s float32: {rates}.",
        "",
        "`limit ms`: the multiply-adds that the method needs at least (`bench/limits.py` says how they "
        f"are counted), at the rate of the row's run, here {rate:.0f} GFLOP/s. `below peer by`: the most "
        "by which any of Certus' bounds lies below the peer's, relative to max(1, |bound|); negative: "
        "all lie above.",
        "",
    ]


def rows_of(path: Path, section: str) -> dict[tuple[str, ...], str]:
    """The lines of a section's table by network, batch and method; what a line lacks stays empty."""
    found: dict[tuple[str, ...], str] = {}
    text = path.read_text() if path.exists() else ""
    own = text.partition(f"<!-- {section}: begin -->")[2].partition(f"<!-- {section}: end -->")[0]
    for line in own.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) > 3 and cells[1].isdigit():
            cells += [""] * (_COLUMNS - len(cells))
            found[tuple(cells[:3])] = f"| {' | '.join(cells)} |"
    return found


def facts(threads: int) -> dict[str, Any]:
    """The machine and its measured rates."""
    from rates import rates

    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
    return {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "rates": rates(threads),
    }


def write(path: Path, text: str, section: str) -> None:
    """Replace what stands between the section's markers; add the section where there is none."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    old = path.read_text() if path.exists() else "# Benchmarks\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    head, rest = old.split(begin, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")


def _of(measured: Measured | None, name: str) -> float:
    return float("nan") if measured is None else getattr(measured, name)


def time_of(measured: Measured | None, divisor: float = 1.0) -> str:
    """The median in milliseconds / divisor, or why there is none."""
    if measured is None:
        return ""
    return measured.error.replace("|", "/") or number(measured.milliseconds / divisor)


def _mean(measured: Measured | None) -> str:
    if measured is None or measured.lower is None:
        return ""
    return f"{float(torch.tensor(measured.lower).mean()):.6g}"


def number(value: float) -> str:
    """Three digits, nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
