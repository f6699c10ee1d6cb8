"""Certus and auto_LiRPA in turn: milliseconds, peak memory and mean lower bound of the margins.

    python bench/bounds.py --data ../shared/data --peer PATH_OF_AUTO_LIRPA --out docs/benchmarks.md
    python bench/bounds.py --weights synthetic --only net=mlp --only batch=1,32

Networks: MLP 784-256-256-10, CNN-A, cifar_resnet2b and 4b, CNN7 and the two vision transformers of
VNN-COMP 2023; methods: interval bounds, CROWN-IBP, CROWN, alpha-CROWN with 20 iterations. The
specification is z_y - z_j for the nine other classes, lower bounds alone, on the box of radius eps
cut to [0, 1]. Every (engine, network, method, batch) runs in a child process of its own; the two
engines of a case take turns, so that both see the same machine. The first call is the warm-up, which
gives the peak memory above what was resident before; the median of the rest is the time. auto_LiRPA is
called with its default options, and is skipped where it cannot be imported; it is no dependency.

With --out the file is written after every row, and rows of other runs that it holds are kept: a run
that is cut short loses nothing, and runs of parts complete one table.
"""

import argparse
import importlib.util
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from engines import ITERATIONS, METHODS
from measure import Child, Measured, Setting, pair
from nets import NAMES, VITS
from table import HEAD, Row, Table, facts

BATCHES = {"mlp": (1, 32, 256), "cnn_a": (1, 32, 256), "cnn7": (1, 32)} | dict.fromkeys(VITS, (1,))


def main() -> int:
    """Measure, print, write."""
    asked = _arguments()
    peer = find_peer(asked.peer)
    setting = Setting(
        data=asked.data if asked.weights == "published" else None,
        peer=peer,
        limit=asked.limit,
        seconds=asked.seconds,
        repeats=asked.repeats,
        threads=asked.threads,
        memory=asked.memory,
        keep_heap=asked.keep_heap,
    )
    only = _filters(asked.only)
    path = Path(asked.out) if asked.out else None
    table = Table(path, (list(NAMES), list(METHODS)), asdict(setting), facts(setting.threads))
    print(HEAD)
    rows: list[Row] = []
    for name in NAMES:
        if name in VITS and setting.data is None:
            continue
        for row in _network(name, setting, only):
            print(table.add(row), flush=True)
            rows.append(row)
    print(table.text())
    worst = max((row.below for row in rows if row.below == row.below), default=0.0)
    print(f"largest amount by which a bound of Certus is below the peer's: {worst:.1e}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data", help="folder of weights and images")
    parser.add_argument("--weights", choices=("published", "synthetic"), default="published")
    parser.add_argument(
        "--peer", help="folder to import auto_LiRPA from (several: separate by ':')"
    )
    parser.add_argument("--only", action="append", default=[], help="net=, method= or batch=a,b")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one case")
    parser.add_argument("--seconds", type=float, default=5.0, help="of repeated calls for one case")
    parser.add_argument("--repeats", type=int, default=25, help="calls for one case at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=float, default=18.0, help="GiB that one child may map")
    parser.add_argument("--keep-heap", action="store_true", help="both keep freed memory (glibc)")
    parser.add_argument("--out", help="Markdown file whose section `bounds` gets the rows")
    asked = parser.parse_args()
    if asked.weights == "published" and not Path(asked.data, "sdp_models").is_dir():
        parser.error(f"{asked.data} has no sdp_models; give --data or --weights synthetic")
    return asked


def find_peer(path: str | None) -> str | None:
    """The import path of the peer, None (and a line) where it cannot be imported."""
    sys.path[:0] = path.split(":") if path else []
    if importlib.util.find_spec("auto_LiRPA") is None:
        print("auto_LiRPA is not importable: its columns stay empty (give --peer)")
        return None
    return path or ""


def _filters(only: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for text in only:
        key, _, values = text.partition("=")
        if key not in ("net", "method", "batch") or not values:
            raise SystemExit(f"--only wants net=, method= or batch=, got {text!r}")
        found.setdefault(key, set()).update(values.split(","))
    return found


def _network(name: str, setting: Setting, only: dict[str, set[str]]) -> Iterator[Row]:
    """All batches and methods of one network; who failed at a batch is not asked for a larger one."""
    if name not in only.get("net", {name}):
        return
    methods = [m for m in METHODS if m in only.get("method", METHODS)]
    engines = ["certus"] if setting.peer is None else ["certus", "peer"]
    failed: dict[tuple[str, str], str] = {}
    for batch in BATCHES.get(name, (1, 32)):
        if str(batch) not in only.get("batch", {str(batch)}):
            continue
        forward = _turns(["forward"], name, "forward", batch, setting, failed)["forward"]
        for method in methods:
            found = _turns(engines, name, method, batch, setting, failed)
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
            yield Row(name, batch, method, forward, found["certus"], found.get("peer"), when)


def _turns(
    engines: list[str],
    name: str,
    method: str,
    batch: int,
    setting: Setting,
    failed: dict[tuple[str, str], str],
) -> dict[str, Measured]:
    """What each engine shows on one case; they take turns."""
    children = {
        engine: Child(engine, name, method, batch, setting)
        for engine in engines
        if (engine, method) not in failed
    }
    pair(list(children.values()))
    found = {engine: child.finish() for engine, child in children.items()}
    for engine, measured in found.items():
        if measured.error:
            failed[engine, method] = measured.error
    return {engine: found.get(engine, Measured(error="-")) for engine in engines}


if __name__ == "__main__":
    assert ITERATIONS == 20 and platform.system() == "Linux", "peak memory is read from /proc"
    sys.exit(main())
