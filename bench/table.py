"""Rows and sections of docs/benchmarks.md."""

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import Measured

HEAD = """\
| network | batch | method | Certus ms | peer ms | peer / Certus | limit ms | Certus / limit | forward ms \
| Certus MiB | peer MiB | mean margin, Certus | mean margin, peer | below peer by |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


@dataclass
class Row:
    """One case: both engines, the plain forward pass, and the multiply-adds that it needs."""

    net: str
    batch: int
    method: str
    forward: Measured
    certus: Measured
    peer: Measured | None
    multiply_adds: float = float("nan")

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

    def line(self, rate: float = float("nan")) -> str:
        """One line of the table; rate is the machine's GFLOP/s."""
        limit = 2 * self.multiply_adds / rate / 1e6
        cells = (
            *(self.net, str(self.batch), self.method),
            *(time_of(self.certus), time_of(self.peer), number(self.ratio)),
            *(number(limit), number(self.certus.milliseconds / limit)),
            number(self.forward.milliseconds),
            *(number(self.certus.peak), number(_of(self.peer, "peak"))),
            *(_mean(self.certus), _mean(self.peer)),
            "" if math.isnan(self.below) else f"{self.below:.1e}",
        )
        return f"| {' | '.join(cells)} |"


def markdown(rows: list[Row], setting: dict[str, Any], machine: dict[str, Any]) -> str:
    """The section: what was measured where, the rates, the table."""
    rates = machine["rates"]
    best = max(v for k, v in rates.items() if k.startswith("matmul"))
    heap = "kept (mallopt)" if setting["keep_heap"] else "as the system sets it"
    lines = [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {setting['threads']} threads, "
        f"torch {machine['torch']}; freed memory: {heap}. Medians; a call longer than "
        f"{setting['seconds']:g} s is measured once. `> {setting['limit']:g} s`: given up; `-`: not tried. "
        "Memory: the peak above what was resident before the first call.",
        "",
        "Measured rates, GFLOP/s float32: "
        + ", ".join(f"{name}: {value:.0f}" for name, value in rates.items())
        + ".",
        "",
        "`limit ms`: the multiply-adds that the method needs at least (`bench/limits.py` says how they "
        f"are counted), at {best:.0f} GFLOP/s. `below peer by`: the most by which any of Certus' "
        "bounds lies below the peer's, relative to max(1, |bound|); negative: all lie above.",
        "",
        HEAD,
        *[row.line(best) for row in rows],
    ]
    return "\n".join(lines)


def facts(threads: int) -> dict[str, Any]:
    """The machine and its measured rates."""
    from limits import rates

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
