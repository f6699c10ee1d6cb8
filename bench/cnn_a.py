"""CROWN on a published network: one batched call, beside an attack and MILP.

    python bench/cnn_a.py WEIGHTS.safetensors IMAGES.npz [--eps 0.1] [--milp 4]

WEIGHTS is the MNIST network CNN-A (conv 16 and 32, kernel 4, stride 2, padding 1; dense 100, 10);
IMAGES holds X [N, 28, 28, 1] in [0, 1] and y [N]. Prints seconds, memory and how the margins of
CROWN, MILP and PGD are ordered on every image; exits with 1 where the order is wrong.
"""

import argparse
import resource
import sys
import time

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

import certus

TOLERANCE = 1e-4  # float32 margins of order ten


def network(path: str) -> nn.Module:
    """CNN-A with the weights of a file."""
    layers = (
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
    )
    net = nn.Sequential(*layers)
    net.load_state_dict(load_file(path))
    return net.eval()


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("images")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--milp", type=int, default=4, help="images that MILP gets")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds of MILP per image")
    asked = parser.parse_args()
    data = np.load(asked.images, allow_pickle=False)
    x = torch.from_numpy(data["X"]).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(data["y"]).long()
    net = network(asked.weights)
    graph, threat = certus.trace(net, x), certus.Linf(asked.eps)
    right = net(x).argmax(1) == y

    start = time.perf_counter()
    spec = torch.eye(10)[y].unsqueeze(1) - torch.eye(10)
    lower = certus.bounds(graph, x, threat, method="crown", spec=spec).lower
    lower = lower.scatter(1, y[:, None], float("inf")).amin(1)
    seconds = time.perf_counter() - start
    attacked = certus.attack(graph, x, y, threat, steps=60, restarts=3)
    gap = attacked.margin - lower
    print(f"{len(x)} images at linf:{asked.eps:g}, clean {int(right.sum())}")
    print(f"crown: one call, {seconds:.1f} s, {int(((lower > 0) & right).sum())} proven")
    print(f"pgd: {int((right & attacked.success).sum())} broken besides the misclassified")
    print(f"pgd margin - crown margin: least {gap[right].min():.4f}, mean {gap[right].mean():.4f}")
    wrong = int((gap[right] < -TOLERANCE).sum())

    closest = torch.where(right, lower, torch.inf).argsort()[: asked.milp]
    for b in closest.tolist():
        part = slice(b, b + 1)
        start = time.perf_counter()
        found = certus.certify(graph, x[part], y[part], threat, "milp", timeout=asked.timeout)
        exact = float(found.margin)
        print(
            f"image {b}: crown {float(lower[b]):.4f}, milp {exact:.4f} ({found.verdict[0].value}, "
            f"{time.perf_counter() - start:.0f} s), pgd {float(attacked.margin[b]):.4f}"
        )
        wrong += (
            exact < float(lower[b]) - TOLERANCE or exact > float(attacked.margin[b]) + TOLERANCE
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB; order violated on {wrong} images")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
