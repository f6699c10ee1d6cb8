"""A training step with bounds against a plain one: seconds, ratio, peak memory; Certus and auto_LiRPA.

    python bench/train_step.py --peer PATH_OF_AUTO_LIRPA --out docs/benchmarks.md

A step is the clean forward pass, the bounds (for Certus the loss of its recipe, with kappa 0.5), the
backward pass and Adam, on a batch of random images. CNN7 takes batch statistics in all of them.
CROWN-IBP mixes its margins half and half with those of interval bounds, as training does while eps
rises. Both engines get nine rows z_y - z_j. Each step runs in a child process of its own; the plain
one, Certus' and the peer's take turns.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bounds import find_peer
from measure import Child, Measured, Setting, pair
from table import number, time_of, write

NETS = ("cnn7_mnist", "cnn_a")
METHODS = ("ibp", "crown-ibp")
HEAD = """\
| network | bounds | plain s | GiB | Certus s | times plain | GiB | peer s | times plain | GiB \
| peer / Certus |
|---|---|---|---|---|---|---|---|---|---|---|"""


def make_step(engine: str, case: Any, method: str) -> Callable[[], Any]:
    """One training step as a function without arguments; it returns the loss."""
    import torch

    module = case.module.train().requires_grad_()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-4)
    images = torch.rand(case.x.shape, generator=torch.Generator().manual_seed(1))
    make = {"plain": _plain, "certus": _certus, "peer": _peer}[
        "plain" if method == "plain" else engine
    ]
    loss_of = make(module, images, case.y, case.eps, method)

    def step() -> Any:
        optimiser.zero_grad()
        loss = loss_of()
        loss.backward()
        optimiser.step()
        return loss.detach().view(1)

    return step


def _plain(module: Any, x: Any, y: Any, eps: float, method: str) -> Callable[[], Any]:
    from torch.nn.functional import cross_entropy

    return lambda: cross_entropy(module(x), y)


def _certus(module: Any, x: Any, y: Any, eps: float, method: str) -> Callable[[], Any]:
    """The clean pass, the statistics and the loss as `certus.training.train` puts them together."""
    import certus
    from certus.core.random import generator
    from certus.graph.batchnorm import with_batch_statistics
    from certus.training.loss import CrownIBPLoss, IBPLoss, Moment

    graph = certus.trace(module.eval(), x[:1])
    loss = IBPLoss() if method == "ibp" else CrownIBPLoss()
    moment = Moment(eps=eps, kappa=0.5, beta=0.5, generator=generator(0, 1))

    def loss_of() -> Any:
        seen, logits = with_batch_statistics(graph, x)
        return loss(seen, logits, x, y, moment).total

    return loss_of


def _peer(module: Any, x: Any, y: Any, eps: float, method: str) -> Callable[[], Any]:
    """As in auto_LiRPA's training examples, without loss fusion."""
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    from engines import margins
    from torch.nn.functional import cross_entropy

    bounded = BoundedModule(module, torch.zeros_like(x), device="cpu", verbose=False)
    bounded.train()
    box = PerturbationLpNorm(
        norm=float("inf"), x_L=(x - eps).clamp(min=0), x_U=(x + eps).clamp(max=1)
    )
    point, rows, zeros = BoundedTensor(x, box), margins(y), torch.zeros_like(y)

    def loss_of() -> Any:
        logits = bounded(point)
        lower, _ = bounded.compute_bounds(x=(point,), IBP=True, C=rows, method=None)
        if method == "crown-ibp":
            # without x the inner bounds are those of the call above, as in the peer's examples
            crown, _ = bounded.compute_bounds(C=rows, method="backward", bound_upper=False)
            lower = 0.5 * crown + 0.5 * lower
        worst = torch.cat([torch.zeros(len(y), 1), -lower], 1)
        return 0.5 * cross_entropy(logits, y) + 0.5 * cross_entropy(worst, zeros)

    return loss_of


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peer", help="folder to import auto_LiRPA from (several: separated by ':')"
    )
    parser.add_argument("--only", action="append", default=[], choices=NETS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20.0, help="of steps for one case")
    parser.add_argument("--repeats", type=int, default=15, help="steps for one case at most")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one case")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=float, default=18.0, help="GiB that one child may map")
    parser.add_argument("--keep-heap", action="store_true", help="both keep freed memory (glibc)")
    parser.add_argument("--out", help="Markdown file whose section `train_step` is replaced")
    asked = parser.parse_args()
    told = {k: v for k, v in vars(asked).items() if k not in ("only", "batch", "out", "peer")}
    setting = Setting(data=None, peer=find_peer(asked.peer), **told)
    lines = [
        f"Batch {asked.batch}, {asked.threads} threads; medians of steps after a warm-up. GiB: the peak "
        "above what was resident before the first step.",
        "",
        HEAD,
    ]
    for name in asked.only or NETS:
        lines += _network(name, asked.batch, setting)
    text = "\n".join(lines)
    print(text)
    if asked.out:
        write(Path(asked.out), text, "train_step")
    return 0


def _network(name: str, batch: int, setting: Setting) -> list[str]:
    """One line for each method; the plain step takes its turn beside both engines."""
    engines = ["plain", "certus"] if setting.peer is None else ["plain", "certus", "peer"]
    lines = []
    for method in METHODS:
        children = {e: Child(f"step:{e}", name, method, batch, setting) for e in engines}
        pair(list(children.values()))
        found = {engine: child.finish(want_lower=False) for engine, child in children.items()}
        plain, ours, theirs = found["plain"], found["certus"], found.get("peer")
        ratio = float("nan") if theirs is None else theirs.milliseconds / ours.milliseconds
        cells = [name, method, time_of(plain, 1000), number(plain.peak / 1024)]
        cells += [*_cells(ours, plain), *_cells(theirs, plain), number(ratio)]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def _cells(measured: Measured | None, plain: Measured) -> tuple[str, str, str]:
    if measured is None:
        return "", "", ""
    ratio = measured.milliseconds / plain.milliseconds
    return time_of(measured, 1000), number(ratio), number(measured.peak / 1024)


if __name__ == "__main__":
    sys.exit(main())
