"""How fast this machine multiplies: the rates behind the column `limit ms`."""

from typing import Any

import torch
from engines import timed
from torch.nn.functional import conv_transpose2d


def rates(threads: int) -> dict[str, float]:
    """Measured GFLOP/s in float32: matrix products of several sizes and transposed convolutions."""
    torch.set_num_threads(threads)
    found = {}
    for size in (1024, 2048, 4096):
        a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
        seconds = _best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
        found[f"matmul {size}"] = 2 * size**3 / seconds / 1e9
    for name, rows, weight, stride in (
        ("CNN-A windows, conv_transpose [256,32,4,4] k4 s2", (256, 32, 4, 4), (32, 16, 4, 4), 2),
        ("CNN7 windows, conv_transpose [256,128,5,5] k3", (256, 128, 5, 5), (128, 128, 3, 3), 1),
        ("CNN7 maps, conv_transpose [64,128,16,16] k3", (64, 128, 16, 16), (128, 128, 3, 3), 1),
    ):
        x, w = torch.randn(rows), torch.randn(weight)
        seconds = _best(lambda x=x, w=w, s=stride: conv_transpose2d(x, w, stride=s))
        found[name] = 2 * x.numel() * w[0].numel() / seconds / 1e9
    return found


def _best(run: Any, budget: float = 0.5) -> float:
    """The least seconds of repeated calls."""
    best, spent = timed(run)[0], 0.0
    while spent < budget:
        seconds = timed(run)[0]
        best, spent = min(best, seconds), spent + seconds
    return best
