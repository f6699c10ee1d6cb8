"""The part of an exported program that does not depend on the network's input."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from certus.core.random import generator
from certus.graph.builders import Constant
from certus.graph.expression import Expression
from certus.graph.layout import Unsupported, find_layout, is_size, sizes, symbolic

# these look only at the shape of their first argument
_SHAPE_ONLY = (
    *("aten.zeros_like.", "aten.ones_like.", "aten.full_like.", "aten.empty_like."),
    *("aten.new_zeros.", "aten.new_ones.", "aten.new_full.", "aten.new_empty.", "aten.fill."),
)
_READS = ("aten.item.", "aten._local_scalar_dense.")
_OTHER_BATCH = 17
_ROUNDINGS = 8  # beside one for each term of the longest sum


class Constants:
    """Parameters, buffers and what is computed from them (and from shapes) in one program."""

    def __init__(self, module: nn.Module, exported: torch.export.ExportedProgram) -> None:
        signature = exported.graph_signature
        names = signature.inputs_to_parameters | signature.inputs_to_buffers
        names = names | signature.inputs_to_lifted_tensor_constants
        own: dict[str, Any] = dict(module.named_parameters(remove_duplicate=False))
        own |= dict(module.named_buffers(remove_duplicate=False))
        state = exported.state_dict | exported.constants
        self.nodes = list(exported.graph.nodes)
        self.tensors: dict[fx.Node, Tensor] = {}
        self.live: set[fx.Node] = set()  # may change after capture
        for node in self.nodes:
            if node.op == "placeholder" and node.name in names:
                key = names[node.name]
                self.tensors[node] = own[key] if key in own else state[key]
                if key in own:
                    self.live.add(node)
            elif node.op == "placeholder":
                self.input = node
        self._data: dict[fx.Node, bool] = {self.input: True}
        self._known = self._sizes(1) | self.tensors

    def is_data(self, node: fx.Node) -> bool:
        """Whether a node is a tensor that depends on the network's input."""
        if node not in self._data:
            sources = [n for n in node.all_input_nodes if not is_size(n)]
            if _shape_only(node):
                sources = sources[1:]
            self._data[node] = not is_size(node) and any(self.is_data(n) for n in sources)
        return self._data[node]

    def value(self, node: fx.Node) -> Constant:
        """The value for a batch of one; refuses one that is not the same along the batch."""
        if is_size(node):
            read = any(str(n.target).startswith(_READS) for n in self._ancestors(node))
            raise Unsupported(
                "a number read from a tensor" if read else "a number that depends on the batch size"
            )
        if node in self.tensors:
            return self.tensors[node]
        above = self._ancestors(node)
        if any(_random(n) for n in above):
            raise Unsupported("a constant drawn at random")
        if any(_batch_size(n) or (_shape_only(n) and _has_batch(n)) for n in above):
            self._check_batch(node)
        found = Expression(node, self._known)
        return found if above & self.live else found.evaluate()

    def trainable(self, node: fx.Node) -> bool:
        """Whether a constant is computed from parameters."""
        return any(
            isinstance(self.tensors.get(n), nn.Parameter) for n in self._ancestors(node) | {node}
        )

    def _ancestors(self, node: fx.Node) -> set[fx.Node]:
        found, left = {node}, [node]
        while left:
            for source in left.pop().all_input_nodes:
                if source not in found and not self._data.get(source, False):
                    found.add(source)
                    left.append(source)
        return found

    def _sizes(self, batch: int) -> dict[fx.Node, Any]:
        """Numbers and shapes for one batch size, all else that a constant may refer to."""
        found: dict[fx.Node, Any] = {}
        for node in self.nodes:
            value = node.meta.get("val")
            if is_size(node) and isinstance(value, torch.SymInt):
                expr = value.node.expr
                number = expr.subs({symbol: batch for symbol in expr.free_symbols})
                found[node] = int(number)
            elif _shape_only(node) and self._is_input(node.args[0]):
                like = node.args[0].meta["val"]
                zero = torch.zeros((), dtype=like.dtype, device=like.device)
                found[node.args[0]] = zero.expand(sizes(like.shape, batch))
        return found

    def _is_input(self, argument: Any) -> bool:
        """Whether an argument stands for data of which only the shape is wanted."""
        return isinstance(argument, fx.Node) and self.is_data(argument)

    def _check_batch(self, node: fx.Node) -> None:
        """The value must be copies along the batch, also after the parameters have changed."""
        draws = generator(0, len(self.nodes))
        other = {
            n: torch.rand(t.shape, generator=draws).to(t) if t.is_floating_point() else t
            for n, t in self.tensors.items()
        }
        with torch.no_grad():
            one = Expression(node, self._sizes(1) | other).evaluate()
            more = Expression(node, self._sizes(_OTHER_BATCH) | other).evaluate()
        shape = node.meta["val"].shape
        if any(symbolic(size) for size in shape):
            axis = find_layout(shape).axis
            one = one.narrow(axis, 0, 1).expand(more.shape)
        longest = max((size for t in other.values() for size in t.shape), default=1)
        if one.shape != more.shape or not _alike(one, more, _ROUNDINGS + longest):
            raise Unsupported("a constant that differs along the batch")


def _alike(one: Tensor, more: Tensor, roundings: int) -> bool:
    """Equal but for roundings of a unit of the largest value: kernels sum otherwise for other sizes."""
    known = one[torch.isfinite(one)].abs() if one.is_floating_point() else one[:0]
    if known.numel() == 0:
        return torch.equal(one, more)
    room = roundings * torch.finfo(one.dtype).eps * known.max()
    return bool(((one == more) | ((one - more).abs() <= room)).all())


def _shape_only(node: fx.Node) -> bool:
    return node.op == "call_function" and str(node.target).startswith(_SHAPE_ONLY)


def _has_batch(node: fx.Node) -> bool:
    return any(symbolic(size) for size in node.meta["val"].shape)


def _batch_size(node: fx.Node) -> bool:
    return is_size(node) and symbolic(node.meta["val"])


def _random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
