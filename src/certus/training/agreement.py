"""Before a training: the captured graph must be what the module is in training mode, gradients included.

Capture keeps values. It drops what stands only in the backward pass (detach, no_grad, a function with
a backward of its own, hooks) and what a module does in training mode alone. Each would make a
training silently another one, so both are evaluated side by side on a few rows.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from certus.core import CertusError, ModelError
from certus.core.random import generator
from certus.graph import Graph
from certus.graph.expression import Expression
from certus.training.blame import differing_part, sources
from certus.training.mode import Normalisations, called, training_mode

_ROWS = (8, 64)  # of the first batch: enough for batch statistics, little beside an epoch
_ELEMENTS = 2**22  # of all values of one pass, where these are not too few rows
_SCALES = (1.0, 1e3, 1e-3)  # of the output's gradient: hooks and clips act on large or small ones
# dtype: largest relative difference of values and of gradients, and what is zero beside all gradients
_TOLERANCE = {torch.float64: (1e-5, 1e-4, 1e-8), torch.float32: (1e-3, 1e-2, 1e-4)}
_COARSE = (5e-2, 1e-1, 1e-2)  # half precision


@dataclass(frozen=True, eq=False)
class _Side:
    """What one of the two evaluations gave: values, and gradients by name (None: not connected)."""

    values: Tensor
    gradients: dict[str, Tensor | None]


def check_agreement(
    norms: Normalisations, still: frozenset[str], x: Tensor, with_inputs: bool
) -> None:
    """Refuse a training in which graph and module differ; leaves module and random state as they are.

    norms: of the captured graph. still: parts in evaluation mode (`still_parts`). x [N, *shape]: what
    the module sees first. with_inputs: compare the gradient with respect to x, too. Values, gradients
    of a random linear form of the outputs and changed buffers are compared on rows of x and on noise
    in its range, at the weights and near them, in float64 where the module can be evaluated so.
    Raises ModelError with the part or the source line.
    """
    module = norms.graph.original
    assert isinstance(module, nn.Module)
    _refuse_backward_hooks(module)
    width = sum(node.numel for node in norms.graph.nodes)
    x = x[: min(_ROWS[1], max(_ROWS[0], _ELEMENTS // width))].detach()
    dtypes = dict.fromkeys((torch.float64, x.dtype))
    with _aside(module), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dtype in dtypes:
            pair = _Pair(norms, still, x, dtype, with_inputs)
            try:
                for number, scale in enumerate(_SCALES):
                    pair.compare(number, scale)
                return
            except CertusError:
                raise
            except Exception as error:
                failure = error  # constants of another dtype inside: the module's own comes next
        line = (str(failure).splitlines() or [type(failure).__name__])[0][:200]
        raise ModelError(f"the model cannot be trained, its training mode fails: {line}")


class _Pair:
    """A module in training mode and its graph, with copies of all tensors in one dtype."""

    def __init__(
        self,
        norms: Normalisations,
        still: frozenset[str],
        x: Tensor,
        dtype: torch.dtype,
        with_inputs: bool,
    ) -> None:
        module = norms.graph.original
        assert isinstance(module, nn.Module)
        self.module, self.norms, self.still, self.x = module, norms, still, x
        self.dtype, self.with_inputs = dtype, with_inputs

    def compare(self, number: int, scale: float) -> None:
        """One round; the first is at the weights and inputs themselves, up to ties between values."""
        draws = generator(0, number)
        low, high = self.x.min(), self.x.max()
        noise = low + (high - low) * torch.rand(self.x.shape, generator=draws).to(self.x)
        x = (self.x + 1e-3 * (noise - self.x) if number != 1 else noise).to(self.dtype)
        held = self._copies(None if number == 0 else draws)
        twin = {n: t.detach().clone().requires_grad_(t.requires_grad) for n, t in held.items()}
        shape = (len(x), *self.norms.graph.output_shape)
        weights = (scale * torch.randn(shape, generator=draws, dtype=torch.float64)).to(x)
        ours = self._graph(x, twin, weights)
        self._judge(self._module(x, held, twin, weights), ours)

    def _copies(self, draws: torch.Generator | None) -> dict[str, Tensor]:
        """Leaf copies of parameters and buffers by name; parameters are moved a little by draws."""
        found: dict[str, Tensor] = {}
        for name, p in self.module.named_parameters():
            new = self._cast(p)
            if draws is not None and new.is_floating_point() and new.numel():
                size = float(new.square().mean().sqrt()) or 1.0
                new += 0.1 * size * torch.randn(new.shape, generator=draws).to(new)
            found[name] = new.requires_grad_(p.requires_grad)
        return found | {name: self._cast(b) for name, b in self.module.named_buffers()}

    def _cast(self, value: Tensor) -> Tensor:
        new = value.detach().clone()
        return new.to(self.dtype) if new.is_floating_point() else new

    def _module(
        self, x: Tensor, held: dict[str, Tensor], before: dict[str, Tensor], weights: Tensor
    ) -> _Side:
        """The module's own pass; what it changes besides its batch normalisations is refused."""
        step, x = _Step(self.module), x.clone().requires_grad_(self.with_inputs)
        state = {f"module.{name}": value for name, value in held.items()}
        with training_mode(self.module, self.still):
            values, after = functional_call(step, state, (x, weights))
        if not isinstance(values, Tensor) or values.shape != weights.shape:
            raise ModelError("the model returns something else in training mode")
        for name, old in before.items():
            if name not in self.norms.buffers and not _same(old, after.get(name, held[name])):
                above, _, own = name.rpartition(".")
                part = called(above, self.module.get_submodule(above))
                raise ModelError(
                    f"{part} changes its {own!r} in training mode, which training on the captured "
                    f"graph does not do, so it would not stay what it is; {_advice(above)}"
                )
        return _Side(values, self._gradients(held, x))

    def _graph(self, x: Tensor, held: dict[str, Tensor], weights: Tensor) -> _Side:
        x = x.clone().requires_grad_(self.with_inputs)
        names = [
            *self.module.named_parameters(remove_duplicate=False),
            *self.module.named_buffers(remove_duplicate=False),
        ]
        first = {id(t): name for name, t in reversed(names)}
        chosen = {key: held[name] for key, name in first.items() if name in held}

        def swap(value: Tensor) -> Tensor:
            return chosen[id(value)] if id(value) in chosen else self._cast(value)

        values = self.norms(x, _rebuilt(self.norms.graph, swap))[1]
        if values.requires_grad:
            (values * weights).sum().backward()
        return _Side(values.detach(), self._gradients(held, x))

    def _gradients(self, held: dict[str, Tensor], x: Tensor) -> dict[str, Tensor | None]:
        names = [name for name, t in held.items() if t.requires_grad]
        return {name: held[name].grad for name in names} | (
            {"": x.grad} if self.with_inputs else {}
        )

    def _judge(self, own: _Side, ours: _Side) -> None:
        pairs = {name: _filled(grad, ours.gradients[name]) for name, grad in own.gradients.items()}
        every = [(own.values, ours.values), *pairs.values()]
        if not all(bool((torch.isfinite(a) == torch.isfinite(b)).all()) for a, b in every):
            raise ModelError(
                "the model or its gradients are not finite in training mode where those of the captured "
                "graph are, or the other way round; train it with a loop of your own"
            )
        if not all(bool(torch.isfinite(a).all()) for a, _ in every):
            return  # both outside of a function's domain; the loop says so where it matters
        of_values, of_gradients, zero = _TOLERANCE.get(self.dtype, _COARSE)
        if _apart(own.values, ours.values) > of_values * max(1e-3, _size(own.values)):
            name = differing_part(self.module, self.x, self.still, set(self.norms.layers.values()))
            part = "the model" if name is None else called(name, self.module.get_submodule(name))
            raise ModelError(
                f"{part} computes something else in training mode than in evaluation mode, which is "
                f"what is trained here; {_advice(name or '')}"
            )
        least = zero * max((_size(t) for pair in pairs.values() for t in pair), default=0.0)
        wrong = [
            name
            for name, (a, b) in pairs.items()
            if _apart(a, b) > max(least, of_gradients * max(_size(a), _size(b)))
        ]
        if wrong:
            raise ModelError(_told(wrong, sources(self.module, self.x)))


class _Step(nn.Module):
    """Forward and backward pass inside one call, for functions that evaluate again in the backward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, weights: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """The outputs, and all tensors of the module after the pass."""
        values = self.module(x)
        after = [*self.module.named_parameters(), *self.module.named_buffers()]
        state = {name: t.detach().clone() for name, t in after}
        if isinstance(values, Tensor) and values.shape == weights.shape:
            if values.requires_grad:
                (values * weights).sum().backward()
            values = values.detach()
        return values, state


@contextmanager
def _aside(module: nn.Module) -> Iterator[None]:
    """Attributes of all parts and torch's random state are put back afterwards.

    Tensors among them get their values again; what lists and dicts hold stays as the passes leave it.
    """
    attributes = [(part, dict(part.__dict__)) for part in module.modules()]
    plain = [t for _, held in attributes for t in held.values() if isinstance(t, Tensor)]
    values = [t.detach().clone() for t in plain]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for part, held in attributes:
                part.__dict__.clear()
                part.__dict__.update(held)
            for tensor, value in zip(plain, values, strict=True):
                if not _same(tensor, value):
                    tensor.detach().copy_(value)


def _rebuilt(graph: Graph, swap: Callable[[Tensor], Tensor]) -> Graph:
    """The graph with every tensor replaced."""

    def new(value: Any) -> Any:
        if isinstance(value, Tensor):
            return swap(value)
        if isinstance(value, Expression):
            return Expression(value.node, {key: new(v) for key, v in value.known.items()})
        return type(value)(map(new, value)) if type(value) in (list, tuple) else value

    ops = {}
    for position, node in enumerate(graph.nodes):
        own = {f.name: getattr(node.op, f.name) for f in fields(node.op) if f.init}
        made = {name: new(value) for name, value in own.items()}
        if any(made[name] is not own[name] for name in own):
            ops[position] = replace(node.op, **made)
    return graph.substituted(ops)


def _refuse_backward_hooks(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if part._backward_hooks or part._backward_pre_hooks:
            raise ModelError(
                f"{called(name, part)} has a backward hook, which would not run: the captured graph "
                "is trained in its place; remove the hook"
            )


def _advice(name: str) -> str:
    if not name:
        return "take that out of its forward"
    return (
        f"replace it, or keep it in evaluation mode: model.train(), then "
        f"model.get_submodule({name!r}).eval()"
    )


def _told(wrong: Sequence[str], found: Sequence[str]) -> str:
    what = [repr(name) if name else "the input" for name in wrong]
    listed = ", ".join(what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
    cause = "; ".join(found[:3]) if found else "a function or hook with its own backward pass"
    way = ", or freeze it (requires_grad_(False))" if all(wrong) else ""
    return (
        f"the gradient of {listed} is not the derivative of what the model computes: {cause}; write it "
        f"without detach, no_grad, hooks and own backward passes{way}"
    )


def _filled(a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    like = a if a is not None else b
    zero = torch.zeros(()) if like is None else torch.zeros_like(like)
    return zero if a is None else a, zero if b is None else b


def _same(old: Tensor, new: Tensor) -> bool:
    return old.shape == new.shape and bool(torch.equal(old.to(new.dtype), new))


def _apart(a: Tensor, b: Tensor) -> float:
    return _size(a - b)


def _size(value: Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0
