"""Samples a second of CERTIFY beside the network's own throughput, and how many samples a question needs.

    python bench/smoothing.py --out docs/benchmarks.md
    python bench/smoothing.py --net lenet --samples 20000 --rounds 3

Networks: MLP 784-256-256-10, CNN-A and LeNet (20-50-500) on 28 x 28 inputs, float32, sigma 0.5, seeded
weights (speed does not depend on them). Raw: the best of several batch sizes of the forward pass alone,
with torch's own threads and with one single-threaded caller for each core. Loop: one image at a time,
repeat, randn, multiply, add, forward, argmax, count. All take turns, round by round; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from table import write
from torch import Tensor, nn

import certus

SIGMA, CLASSES = 0.5, 10
BATCHES = (64, 128, 256, 400, 512, 1000)
HEAD = """\
| network | raw samples/s | loop, of raw | fresh draws, of raw | shared draws, of raw | shared, response |
|---|---|---|---|---|---|"""


def networks() -> dict[str, nn.Module]:
    """Seeded networks by name."""
    torch.manual_seed(0)
    mlp = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
        nn.Linear(256, CLASSES),
    )
    cnn_a = nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, CLASSES)),
    )
    lenet = nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, CLASSES)),
    )
    return {name: net.eval() for name, net in (("mlp", mlp), ("cnn_a", cnn_a), ("lenet", lenet))}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", nargs="*", default=["mlp", "cnn_a", "lenet"])
    parser.add_argument("--samples", type=int, default=100_000, help="for each input")
    parser.add_argument("--inputs", type=int, default=16, help="that share draws")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    asked = parser.parse_args()
    lines = [HEAD]
    for name in asked.net:
        lines.append(_line(name, networks()[name], asked))
        print(lines[-1], flush=True)
    text = (
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; medians of {asked.rounds} rounds "
        f"of {asked.samples:,} samples for each input, of which {asked.inputs} share draws. `of raw` is "
        "the share of the raw throughput.\n\n"
    ) + "\n".join(lines)
    if asked.out:
        write(Path(asked.out), text, "smoothing")
    return 0


def _line(name: str, net: nn.Module, asked: argparse.Namespace) -> str:
    samples = asked.samples
    x = torch.rand(asked.inputs, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    graph = certus.trace(net, x)
    ways: dict[str, Callable[[], float]] = {
        f"raw {batch} {threaded}": _raw(net, x, batch, threaded, samples)
        for batch in BATCHES
        for threaded in (False, True)
    }
    ways["loop"] = _loop(net, x, samples)
    ways["fresh"] = _certify(net, x[:1], samples, shared=False)
    ways["shared"] = _certify(net, x, samples, shared=True)
    ways["response"] = _certify(graph, x, samples, shared=True)
    with torch.inference_mode():
        found: dict[str, list[float]] = {way: [] for way in ways if ways[way]()}  # a warm-up each
        for _ in range(asked.rounds):
            for way, measure in ways.items():
                found[way].append(measure())
    rate = {way: statistics.median(values) for way, values in found.items()}
    best = max((way for way in rate if way.startswith("raw")), key=rate.__getitem__)
    raw = rate[best]
    shares = [f"{rate[way] / raw:.2f}" for way in ("loop", "fresh", "shared", "response")]
    how = "a thread each" if best.endswith("True") else "torch's threads"
    return f"| {name} | {raw:,.0f} (batch {best.split()[1]}, {how}) | " + " | ".join(shares) + " |"


def _raw(
    net: nn.Module, x: Tensor, batch: int, threaded: bool, samples: int
) -> Callable[[], float]:
    rows = x[:1].repeat(batch, 1, 1, 1)
    calls = max(2, samples // 4 // batch)

    def some(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                net(rows)

    def measure() -> float:
        threads = torch.get_num_threads()
        if not threaded or threads == 1:
            start = time.perf_counter()
            some(calls)
            return calls * batch / (time.perf_counter() - start)
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(some, [2] * threads))
            start = time.perf_counter()
            list(pool.map(some, [calls // threads] * threads))
            seconds = time.perf_counter() - start
        torch.set_num_threads(threads)
        return calls // threads * threads * batch / seconds

    return measure


def _loop(net: nn.Module, x: Tensor, samples: int) -> Callable[[], float]:
    def measure() -> float:
        counts = torch.zeros(CLASSES, dtype=torch.int64)
        start = time.perf_counter()
        for _ in range(samples // 4 // 400):
            rows = x[:1].repeat((400, 1, 1, 1))
            answer = net(rows + torch.randn_like(rows) * SIGMA).argmax(1)
            counts += torch.bincount(answer, minlength=CLASSES)
        return int(counts.sum()) / (time.perf_counter() - start)

    return measure


def _certify(
    module: Callable[[Tensor], Tensor], x: Tensor, n: int, shared: bool
) -> Callable[[], float]:
    g = certus.Smoothed(module, certus.Gaussian(SIGMA), CLASSES, shared=shared)

    def measure() -> float:
        start = time.perf_counter()
        g.certify(x, n0=100, n=n)
        return len(x) * (n + 100) / (time.perf_counter() - start)

    return measure


if __name__ == "__main__":
    raise SystemExit(main())
