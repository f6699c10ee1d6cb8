"""ATen sums at constant places: index_add, scatter_add and their kin, as message passing uses them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from certus.graph import composite
from certus.graph.affine import Scale, Sum
from certus.graph.aten_arithmetic import scaled
from certus.graph.aten_move import BATCH, index_of, moved, rank_of
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.layout import symbolic
from certus.graph.structural import Concat, Gather, Reshape, ScatterAdd

_LARGE = 2**24  # candidates of all places together
Take = Callable[[Tensor], Tensor]
Sent = tuple[int, Tensor, Tensor]


@builds("index_add.default")
def _index_add(a: Arguments) -> int:
    places = _numbered(a["self"], a).index_select(a.dim(a["dim"]), index_of(a, a["index"]))
    arrived = _arrived(a, a["source"], places, lambda numbers: numbers)
    return _onto(a, scaled(a, arrived, float(1 if a["alpha"] is None else a["alpha"])))


@builds("index_put.default")
def _index_put(a: Arguments) -> int:
    if not a["accumulate"]:
        return moved(a)
    places = _put_places(a)
    return _onto(a, _arrived(a, a["values"], places, lambda numbers: numbers.expand(places.shape)))


def _put_places(a: Arguments) -> Tensor:
    index = [slice(None) if i is None else index_of(a, i) for i in a["indices"]]
    return _numbered(a["self"], a)[tuple(index)]


@builds("scatter_add.default", "scatter.reduce", "scatter_reduce.two")
def _scatter(a: Arguments) -> int:
    index = index_of(a, a["index"])
    places = _numbered(a["self"], a).gather(a.dim(a["dim"]), index)
    kept = tuple(slice(0, size) for size in index.shape)
    return _reduced(a, a["src"], places, lambda numbers: numbers[kept])


@builds("index_reduce.default")
def _index_reduce(a: Arguments) -> int:
    places = _numbered(a["self"], a).index_select(a.dim(a["dim"]), index_of(a, a["index"]))
    return _reduced(a, a["source"], places, lambda numbers: numbers)


def _reduced(a: Arguments, values: fx.Node, places: Tensor, take: Take) -> int:
    """What meets, joined with the old value or, where something arrives, without it."""
    how, own = a["reduce"] or "sum", a["include_self"] is not False
    if how in ("amax", "amin"):
        return _extreme(a, _sent(a, values, places, take), own, how == "amax")
    if how not in ("sum", "add", "mean"):
        raise Unsupported(f"values that meet are joined by {how}")
    arrived = _arrived(a, values, places, take)
    like = a.scope.builder.like
    count = torch.bincount(places[0].flatten(), minlength=torch.Size(a.canonical()).numel())
    count = count.view(1, *a.canonical()).to(like)
    total = _onto(a, arrived, None if own else (count == 0).to(like))
    if how != "mean":
        return total
    return a.add(Scale((count + own).clamp(min=1), divide=True), total)


def _extreme(a: Arguments, sent: Sent, own: bool, largest: bool) -> int:
    """The largest (smallest) of all that meet: a row of candidates for each place, the last repeated."""
    position, sources, places = sent
    shape, builder = a.canonical(), a.scope.builder
    count = torch.Size(shape).numel()
    rows: list[list[int]] = [[place] if own else [] for place in range(count)]
    for source, place in zip(sources.tolist(), places.tolist(), strict=True):
        rows[place].append(count + source)
    rows = [row or [place] for place, row in enumerate(rows)]
    width = max(map(len, rows))
    if width * count > _LARGE:
        raise Unsupported("too many values that meet")
    index = torch.tensor([row + row[-1:] * (width - len(row)) for row in rows])
    old = a.at(a["self"], rank_of(a, a["self"]))
    flat = [a.add(Reshape((torch.Size(a.shape(p)).numel(),)), p) for p in (old, position)]
    both = a.add(Concat(1), *flat)
    met = a.add(Gather(index.flatten().to(builder.like.device), (count, width)), both)
    reduce = composite.reduce_max if largest else composite.reduce_min
    return a.add(Reshape(shape), reduce(builder, met, (2,), source=a.source))


def _sent(a: Arguments, values: fx.Node, places: Tensor, take: Take) -> Sent:
    """The position of the new values, and the numbers of values and of their places, in one order.

    places [BATCH, ...]; take says which value goes to which of them.
    """
    position = a.at(values, rank_of(a, values))
    count, total = torch.Size(a.shape(position)).numel(), torch.Size(a.canonical()).numel()
    sources = take(_numbered(values, a))
    alone = places.shape[:1] == (BATCH,) and torch.equal(places[0] + total, places[1])
    step = count if rank_of(a, values) >= 0 else 0
    if not alone or not torch.equal(sources[0] + step, sources[1]) or int(places[0].max()) >= total:
        raise Unsupported("the result depends on other inputs of the batch")
    return position, sources[0].flatten(), places[0].flatten()


def _arrived(a: Arguments, values: fx.Node, places: Tensor, take: Take) -> int:
    """The new values added up at their places."""
    position, sources, landing = _sent(a, values, places, take)
    device = a.scope.builder.like.device
    if not torch.equal(sources, torch.arange(torch.Size(a.shape(position)).numel())):
        position = a.add(Gather(sources.to(device), tuple(sources.shape)), position)
    return a.add(ScatterAdd(landing.to(device), a.canonical()), position)


def _onto(a: Arguments, arrived: int, kept: Tensor | None = None) -> int:
    """The old values, times a mask of those that stay, plus what arrives."""
    if not a.is_data(a["self"]):
        old = a.value(a["self"])
        if isinstance(old, Tensor) and not old.requires_grad and not bool(old.any()):
            return arrived
    old = a.at(a["self"], rank_of(a, a["self"]))
    return a.add(Sum(), old if kept is None else a.add(Scale(kept), old), arrived)


def _numbered(node: fx.Node, a: Arguments) -> Tensor:
    """Numbers in the shape of a tensor; those of the second input of the batch follow the first's."""
    shape: list[Any] = [BATCH if symbolic(s) else int(s) for s in node.meta["val"].shape]
    return torch.arange(torch.Size(shape).numel()).view(shape)
