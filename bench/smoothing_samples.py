"""How many samples the question "is the radius at least r?" takes, and whether the answers are those of n.

    python bench/smoothing_samples.py CHECKPOINT --data-dir PATH_OF_MNIST --sigma 0.5

For the first `--limit` test images, at equal alpha: CERTIFY with a fixed n (Cohen et al. 2019), and the rule
`AtRadius` with at most as many samples. Prints samples, seconds and on how many images the two disagree.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

import certus
from certus.smoothing.rules import AtRadius, Fixed, Rule
from certus.zoo import load_checkpoint, load_data


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--radius", type=float, help="default: sigma")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--alpha", type=float, default=1e-3)
    asked = parser.parse_args()
    module, card = load_checkpoint(asked.checkpoint)
    data = load_data(card.data, asked.data_dir)
    x, y = data.x_test[: asked.limit], data.y_test[: asked.limit]
    radius = asked.sigma if asked.radius is None else asked.radius
    g = certus.Smoothed(module, certus.Gaussian(asked.sigma), card.classes)
    rules: dict[str, Rule] = {
        "at radius": AtRadius(radius=radius, n=asked.n),
        "fixed n": Fixed(n=asked.n),
    }
    found, reached = {}, {}
    with Progress(console=Console(stderr=True)) as bar:
        for name, rule in rules.items():
            task = bar.add_task(name)
            start = time.perf_counter()
            answer = g.certify(
                x,
                alpha=asked.alpha,
                rule=rule,
                progress=lambda done, total, note="", task=task: bar.update(
                    task, completed=done, total=total
                ),
            )
            taken = sum(record["n"] + record["n0"] for record in answer.evidence)
            found[name] = taken
            reached[name] = (answer.prediction == y) & (answer.radius >= radius)
            median = sorted(record["n"] for record in answer.evidence)[len(x) // 2]
            print(
                f"{name}: {int(reached[name].sum())} of {len(x)} certified at {radius:g}, "
                f"{taken:,} samples, median {median:,}, {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    lost = int((reached["fixed n"] & ~reached["at radius"]).sum())
    gained = int((reached["at radius"] & ~reached["fixed n"]).sum())
    print(
        f"{found['fixed n'] / found['at radius']:.1f} times fewer samples; certified by fixed n alone "
        f"{lost}, by the sequence alone {gained}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
