"""One small instance of every operation, on a box: what claims about operations are held against."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph import Graph
from certus.graph.activation import Clamp, LeakyRelu, MaxPool, Within
from certus.graph.affine import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Fourier,
    Interpolation,
    Linear,
    MatMul,
    Scale,
    Shift,
    Sum,
)
from certus.graph.bilinear import Mul, Product
from certus.graph.builder import Builder
from certus.graph.extremum import ArgMax, Maximum, Norm, ReduceMax, Sorted
from certus.graph.inverse import Acosh
from certus.graph.op import Op
from certus.graph.piecewise import Prelu
from certus.graph.powers import Log, Power, Reciprocal, Sqrt
from certus.graph.softmax import LogSumExp, MaskedSoftmax, Softmax
from certus.graph.structural import (
    AdaptiveAvgPool,
    AvgPool,
    Concat,
    CumSum,
    Expand,
    Flip,
    Gather,
    Pad,
    Permute,
    Reduce,
    Reshape,
    Resize,
    ScatterAdd,
    Select,
    Slice,
)
from certus.graph.whole import Fits, FloorDivide
from certus.threats import Box

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Example:
    """An operation on inputs of these shapes, each value in [low, high]."""

    op: Op
    shapes: tuple[Shape, ...]
    low: float = -0.6
    high: float = 0.7

    def intervals(self) -> list[tuple[Tensor, Tensor]]:
        """Bounds [1, *shape] of every input."""
        return [
            (torch.full((1, *s), self.low).double(), torch.full((1, *s), self.high).double())
            for s in self.shapes
        ]

    def box(self) -> Box:
        """The flat input of `graph`."""
        lower, upper = (
            torch.cat([b.flatten(1) for b in side], 1)
            for side in zip(*self.intervals(), strict=True)
        )
        return Box(lower, upper)

    def graph(self) -> Graph:
        """The operation alone on one flat input, its result flat."""
        sizes = [torch.Size(s).numel() for s in self.shapes]
        b, start, places = Builder((sum(sizes),), torch.zeros(1).double()), 0, []
        for size, shape in zip(sizes, self.shapes, strict=True):
            places.append(b.add(Reshape(shape), b.add(Slice(1, start, start + size), 0)))
            start += size
        found = b.add(self.op, *places)
        flat = b.add(Reshape((torch.Size(b.shape(found)).numel(),)), found)
        return b.finish(flat, torch.nn.Identity())


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).double()


_NORM = BatchNorm(_randn(2), _randn(2), _randn(2), _randn(2).square() + 0.1, 1e-3)
_POSITIVE = {"low": 0.3, "high": 0.9}

# every operation that is not one function of one value without settings
_OTHERS = (
    Example(Linear(_randn(3, 4), _randn(3)), ((4,),)),
    Example(Interpolation(_randn(3, 4)), ((4,),)),
    Example(Fourier(_randn(3, 4)), ((4,),)),
    Example(Conv(_randn(2, 2, 2, 2), _randn(2), (1, 1), (1, 1), (1, 1)), ((2, 3, 3),)),
    Example(
        ConvTranspose(_randn(2, 1, 2, 2), _randn(1), (2, 2), (0, 0), (0, 0), (1, 1)), ((2, 2, 2),)
    ),
    Example(_NORM, ((2, 3),)),
    Example(Scale(_randn(3)), ((3,),)),
    Example(Shift(_randn(3)), ((3,),)),
    Example(Sum(-0.5), ((3,), (3,))),
    Example(MatMul(_randn(3, 2)), ((2, 3),)),
    Example(Reshape((3, 2)), ((2, 3),)),
    Example(Permute((0, 2, 1)), ((2, 3),)),
    Example(Slice(1, 0, 3, 2), ((4,),)),
    Example(Select(1, 1), ((2, 3),)),
    Example(Concat(1), ((2,), (3,))),
    Example(Expand((3, 2)), ((1, 2),)),
    Example(Reduce((1,), False, 0.5), ((2, 3),)),
    Example(AvgPool((2,), (1,), (0,)), ((1, 4),)),
    Example(AdaptiveAvgPool((2,)), ((1, 5),)),
    Example(Pad((1, 1), 0.5), ((3,),)),
    Example(Gather(torch.tensor([2, 0, 2, 1]), (2, 2)), ((3,),)),
    Example(ScatterAdd(torch.tensor([2, 0, 2, 1]), (3,)), ((2, 2),)),
    Example(Flip((1,)), ((3,),)),
    Example(CumSum(1), ((3,),)),
    Example(Resize((4,)), ((1, 2),)),
    Example(LeakyRelu(0.1), ((3,),)),
    Example(Clamp(-0.2, 0.4), ((3,),)),
    Example(Within(-0.6, 0.7), ((3,),)),
    Example(Prelu(torch.tensor(-0.3).double()), ((3,),)),
    Example(Log(), ((3,),), **_POSITIVE),
    Example(Sqrt(), ((3,),), **_POSITIVE),
    Example(Reciprocal(), ((3,),), **_POSITIVE),
    Example(Power(3.0), ((3,),)),
    Example(MaxPool((2,), (1,), (0,), (1,)), ((1, 4),)),
    Example(Maximum(), ((3,), (3,))),
    Example(ReduceMax((1,)), ((4,),)),
    Example(Norm(2.0, (1,)), ((3,),)),
    Example(ArgMax(1), ((3,),)),
    Example(Sorted(1), ((3,),)),
    Example(Mul(), ((3,), (3,))),
    Example(Product(), ((2, 3), (3, 2))),
    Example(Softmax(1), ((3,),)),
    Example(MaskedSoftmax(1, torch.tensor([[True, False, True]])), ((3,),)),
    Example(LogSumExp(1), ((3,),)),
    Example(Acosh(), ((3,),), 1.2, 1.9),
    Example(Fits(-2.0, 2.0), ((3,),)),
    Example(FloorDivide(torch.tensor(0.3).double()), ((3,),)),
)
_BY_KIND = {type(example.op): example for example in _OTHERS}


def example_of(kind: type[Op]) -> Example:
    """The example of an operation; an elementwise one without settings needs no entry above."""
    return _BY_KIND[kind] if kind in _BY_KIND else Example(kind(), ((3,),))
