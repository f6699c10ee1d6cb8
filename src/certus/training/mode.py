"""What training mode means for the parts of a module: which stay as in evaluation mode, which do not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from certus.core import ModelError
from certus.graph import Graph
from certus.graph.batchnorm import moved, normalisations, settle, with_batch_statistics


def still_parts(module: nn.Module) -> frozenset[str]:
    """Names of the parts that a training leaves in evaluation mode.

    These are the parts that the caller has set so (`model.train()`, then `model.part.eval()`), those
    that an own `train` method keeps there, batch normalisations whose weight and bias are both
    frozen, and dropout. A module that is in evaluation mode as a whole is trained as if it were not.
    Raises ModelError for dropout in training mode: training here has none, since bounds and logits
    must be of one function.
    """
    parts = dict(module.named_modules())
    still = {name for name, part in parts.items() if module.training and not part.training}
    still |= _kept_by_train(module)
    for name, part in parts.items():
        if name not in still and _drops(part):
            if part.training:
                raise ModelError(
                    f"{called(name, part)} would be off while the model is trained here; "
                    "call model.eval() first to train it without dropout"
                )
            still.add(name)
        own = list(part.parameters()) if isinstance(part, _BatchNorm) else []
        if own and not any(p.requires_grad for p in own):
            still.add(name)
    return frozenset(still)


def called(name: str, part: nn.Module) -> str:
    """A part as an error names it."""
    return (
        f"{type(part).__name__} {name!r}" if name else f"{type(part).__name__}, the model itself,"
    )


@contextmanager
def training_mode(module: nn.Module, still: frozenset[str]) -> Iterator[None]:
    """Training mode in all parts but these; afterwards every part is in the mode that it was in."""
    before = {part: part.training for part in module.modules()}
    try:
        for name, part in module.named_modules():
            part.training = name not in still
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


class Normalisations:
    """The batch normalisations of a captured module that take the statistics of each batch.

    momentum: of all of them; None stands for each layer's own (torch's: None there is the cumulative
    average). Layers among `still` keep their running statistics, in the logits and in the bounds.
    """

    def __init__(self, graph: Graph, still: frozenset[str], momentum: float | None) -> None:
        module = graph.original
        assert isinstance(module, nn.Module)
        owners: dict[int, tuple[str, _BatchNorm]] = {
            id(part.running_mean): (name, part)
            for name, part in module.named_modules()
            if isinstance(part, _BatchNorm) and name not in still
        }
        self.graph, self.momentum = graph, momentum
        held: dict[int, Tensor] = {
            i: vars(graph.nodes[i].op)["mean"] for i in normalisations(graph)
        }
        found = {i: owners[id(mean)] for i, mean in held.items() if id(mean) in owners}
        self.layers = {i: part for i, (_, part) in found.items()}
        self.buffers = frozenset(
            f"{name}.{buffer}".lstrip(".")
            for name, part in found.values()
            for buffer, _ in part.named_buffers(recurse=False)
        )

    def __call__(self, x: Tensor, graph: Graph | None = None) -> tuple[Graph, Tensor]:
        """The graph (or a copy of it) with the statistics of x [B, *shape], and its value on x."""
        return with_batch_statistics(graph or self.graph, x, None, self.layers)

    @torch.no_grad()
    def moved(self, seen: Graph, batch: int) -> Mapping[int, tuple[Tensor, Tensor]]:
        """Where the running statistics go; ModelError where they would not be finite."""
        return moved(self.graph, seen, batch, self._momenta()) if self.layers else {}

    @torch.no_grad()
    def settle(self, statistics: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        """Write what `moved` found."""
        settle(self.graph, statistics)
        for position in statistics:
            if (seen := self._counted(position)) is not None:
                seen += 1

    def _momenta(self) -> dict[int, float]:
        if self.momentum is not None:
            return dict.fromkeys(self.layers, self.momentum)
        found: dict[int, float] = {}
        for position, layer in self.layers.items():
            seen = self._counted(position)
            again = sum(self.layers[i] is layer for i in found)  # used twice, a layer moves twice
            found[position] = layer.momentum or 0.0 if seen is None else 1 / (int(seen) + again + 1)
        return found

    def _counted(self, position: int) -> Tensor | None:
        """The batches that a cumulative average has seen; None for a layer with a momentum."""
        layer = self.layers[position]
        own = self.momentum is None and layer.momentum is None
        return layer.num_batches_tracked if own else None


def _drops(part: nn.Module) -> bool:
    if isinstance(part, _DropoutNd):
        return part.p > 0
    return isinstance(part, nn.MultiheadAttention | nn.RNNBase) and part.dropout > 0


def _kept_by_train(module: nn.Module) -> set[str]:
    """Parts that stay in evaluation mode when the method `train` of a part above is called."""
    before = {part: part.training for part in module.modules()}
    found: set[str] = set()
    try:
        for above, part in module.named_modules():
            if type(part).train is not nn.Module.train:
                part.train()
                names = {name for name, inner in part.named_modules() if not inner.training}
                found |= {".".join(filter(None, (above, name))) for name in names}
    finally:
        for part, mode in before.items():
            part.training = mode
    return found
