"""How many rows one walk may carry: few enough for the caches, and never more than memory holds."""

import os
from pathlib import Path

import torch
from torch import Tensor

from certus.bounding import windows
from certus.graph.affine import Conv
from certus.graph.fusion import needed
from certus.graph.graph import Graph, Node
from certus.graph.op import Elementwise, Input

_CACHED = 2**20  # elements of one tensor of rows: a handful of them stay in a CPU's caches
_TENSORS = 12  # of a node's size that a method keeps or needs for a moment, by measurement
_TOGETHER = 2**20  # values of inputs bounded together: more is slower on a CPU
_ENDING = 8  # times as many where most rows end on the way
_COPIES = 8  # tensors of that size that are alive at the same time, by measurement
_LARGE = 2**25 - 2**16  # bytes, the largest block for which glibc moves its threshold
_FALLBACK = 2**31  # bytes, where the system does not tell


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_available(), _unused_of_group()]
    known = [size for size in found if size is not None]
    return min(known) if known else _FALLBACK


def elements(
    device: torch.device, dtype: torch.dtype, memory: int | None, ending: bool = False
) -> int:
    """Elements that one tensor of rows may have; memory is a budget in bytes, None half of what is free.

    ending: most of the rows end on the way, so that the caches, though not memory, take more of them.
    """
    budget = free_memory(device) // 2 if memory is None else memory
    most = budget // (_COPIES * dtype.itemsize)
    # where gradients are recorded every piece would add to the gradients of all weights
    whole = device.type == "cuda" or torch.is_grad_enabled()
    return max(1, most if whole else min(most, _CACHED * (_ENDING if ending else 1)))


def groups(
    graph: Graph, like: Tensor, memory: int | None = None, values: int | None = None
) -> tuple[Tensor, ...]:
    """Positions of inputs like [B, *shape] in groups that fit into memory, in order.

    memory is a budget in bytes, None half of what is free; values: elements of a tensor that one input takes,
    by default one for each value of a node. On a CPU groups are no larger than pays: fresh memory costs
    more than the arithmetic on it, but each group does the same to the weights, which so count as well.
    """
    values = values or sum(node.numel for node in graph.nodes)
    budget = free_memory(like.device) // 2 if memory is None else memory
    most = budget // (_TENSORS * like.dtype.itemsize)
    if like.device.type == "cpu" and not torch.is_grad_enabled():
        most = min(most, max(_TOGETHER, sum(weight.numel() for _, weight in graph.tensors())))
    return torch.arange(len(like), device=like.device).split(max(1, most // values))


def keep_freed_memory(device: torch.device) -> None:
    """Have the C library keep what is freed: giving pages back costs more than the arithmetic on them.

    glibc returns every freed block above a threshold to the system, which must clear its pages when
    they are asked for again. It raises the threshold by itself, up to 32 MiB, once a large block is
    freed; elsewhere this allocates a block and frees it.
    """
    if device.type == "cpu":
        torch.empty(_LARGE, dtype=torch.uint8)


def widest(graph: Graph, start: int) -> int:
    """Elements of the largest row on the way from a node to the input, whole maps assumed."""
    return max(graph.nodes[position].numel for position in needed(graph, start))


def widest_window(graph: Graph, start: int, picks: bool = True) -> int:
    """As `widest` for rows that start at one neuron of a feature map and stay windows.

    Where windows may not go on (a pool, a concatenation, a window of most of its map, an input whose
    region does not pick coordinates) whole maps are assumed from there on.
    """
    size = {start: [1, 1]}
    most, small = 1, True
    for position in sorted(needed(graph, start), reverse=True):
        node = graph.nodes[position]
        small = small and _stays(graph, node, size[position], picks)
        if not small:  # a walk leaves windows everywhere at once
            most = max(most, node.numel)
            continue
        own = size[position]
        most = max(most, node.shape[0] * own[0] * own[1])
        reach = list(own)
        if isinstance(node.op, Conv):
            kernel = node.op.weight.shape[2:]
            reach = [
                (k - 1) * s + d * (w - 1) + 1
                for k, s, d, w in zip(own, node.op.stride, node.op.dilation, kernel, strict=True)
            ]
        for source in node.inputs:
            old = size.get(source, [0, 0])
            size[source] = [max(a, b) for a, b in zip(old, reach, strict=True)]
    return most


def _stays(graph: Graph, node: Node, own: list[int], picks: bool) -> bool:
    """Whether windows of a size go on at a node; relaxations of elementwise operations are lines."""
    most = 1 if isinstance(node.op, Input) else windows.MOST
    if len(node.shape) != 3 or own[0] * own[1] > most * node.shape[1] * node.shape[2]:
        return False
    if isinstance(node.op, Input):
        return picks
    return isinstance(node.op, Elementwise) or windows.able(node, graph.shapes(node))


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _unused_of_group() -> int | None:
    """What a container's own limit leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((folder / f"memory.{n}").read_text()) for n in ("max", "current"))
    except (OSError, ValueError):
        return None
    return max(0, limit - used)
