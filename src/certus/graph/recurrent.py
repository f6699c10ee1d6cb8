"""Recurrent layers unrolled over time, equal to torch.nn.LSTM, GRU and RNN in evaluation mode.

Sequences are [T, features] for each input. `weights` is torch's flat list: for each layer, and in
it for each direction, input weights, hidden weights and, where there are biases, both biases.
A starting state [layers * directions, H] is a position, or None for zeros. ONNX's weights and gates
are put into this order by its importer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from certus.core import ArgumentError
from certus.graph.activation import Relu, Sigmoid, Tanh, Within
from certus.graph.affine import Linear, Sum
from certus.graph.bilinear import Mul
from certus.graph.builder import Builder
from certus.graph.expression import Expression
from certus.graph.op import Op
from certus.graph.structural import Concat, Reshape, Select, Slice


@dataclass(frozen=True)
class Cell:
    """The parameters of one layer in one direction."""

    inner: Tensor
    hidden: Tensor
    bias: Tensor | None
    hidden_bias: Tensor | None


_MOST = 1 + 1e-5  # a limit of 1 with room for rounding

State = tuple[int, ...]  # positions [H]; the first is the output
Step = Callable[[Builder, Cell, int, State, str], State]


@dataclass(frozen=True)
class Unrolled:
    """Positions of the results: outputs [T, directions * H], last states [layers * directions, H]."""

    output: int
    states: tuple[int, ...]


def lstm(
    b: Builder,
    x: int,
    weights: Sequence[Tensor],
    biases: bool = True,
    bidirectional: bool = False,
    state: tuple[int, int] | None = None,
    source: str = "",
) -> Unrolled:
    """torch.nn.LSTM (gates input, forget, cell, output); the states are the last h and c."""
    return _unroll(
        b, x, _cells(weights, biases, bidirectional), _lstm, state or (None, None), source
    )


def gru(
    b: Builder,
    x: int,
    weights: Sequence[Tensor],
    biases: bool = True,
    bidirectional: bool = False,
    state: int | None = None,
    reset_after: bool = True,
    source: str = "",
) -> Unrolled:
    """torch.nn.GRU (gates reset, update, new). From zeros the state stays in [-1, 1], a mean of tanh.

    reset_after False: the reset gate acts before the hidden weights (ONNX's linear_before_reset = 0).
    """
    cell = _gru_after if reset_after else _gru_before

    def step(b: Builder, own: Cell, x: int, held: State, source: str) -> State:
        new = cell(b, own, x, held, source)
        return new if state is not None else (b.add(Within(-_MOST, _MOST), *new, source=source),)

    return _unroll(b, x, _cells(weights, biases, bidirectional), step, (state,), source)


def rnn_tanh(
    b: Builder,
    x: int,
    weights: Sequence[Tensor],
    biases: bool = True,
    bidirectional: bool = False,
    state: int | None = None,
    source: str = "",
) -> Unrolled:
    """torch.nn.RNN with tanh."""
    return _unroll(b, x, _cells(weights, biases, bidirectional), _simple(Tanh()), (state,), source)


def rnn_relu(
    b: Builder,
    x: int,
    weights: Sequence[Tensor],
    biases: bool = True,
    bidirectional: bool = False,
    state: int | None = None,
    source: str = "",
) -> Unrolled:
    """torch.nn.RNN with ReLU."""
    return _unroll(b, x, _cells(weights, biases, bidirectional), _simple(Relu()), (state,), source)


def _cells(weights: Sequence[Tensor], biases: bool, bidirectional: bool) -> list[tuple[Cell, ...]]:
    """For each layer its directions."""
    size, ways = 4 if biases else 2, 1 + bidirectional
    if not weights or len(weights) % (size * ways):
        raise ArgumentError(f"{len(weights)} weights do not make layers of {size * ways}")
    cells = []
    for i in range(0, len(weights), size):
        bias, hidden_bias = weights[i + 2 : i + 4] if biases else (None, None)
        cells.append(Cell(weights[i], weights[i + 1], bias, hidden_bias))
    return [tuple(cells[i : i + ways]) for i in range(0, len(cells), ways)]


def _unroll(
    b: Builder,
    x: int,
    layers: list[tuple[Cell, ...]],
    step: Step,
    states: tuple[int | None, ...],
    source: str,
) -> Unrolled:
    """Layer by layer; a sequence is a list of positions, one for each time."""
    times = [b.add(Select(1, t), x, source=source) for t in range(b.shape(x)[0])]
    last: list[State] = []
    for cells in layers:
        ways: list[list[int]] = []
        for way, cell in enumerate(cells):
            held = tuple(_start(b, cell, times[0], s, len(last), source) for s in states)
            outputs = []
            for time in reversed(times) if way else times:
                held = step(b, cell, time, held, source)
                outputs.append(held[0])
            last.append(held)
            ways.append(outputs[::-1] if way else outputs)
        times = [
            both[0] if len(both) == 1 else b.add(Concat(1), *both, source=source)
            for both in zip(*ways, strict=True)
        ]
    final = tuple(_stack(b, list(one), source) for one in zip(*last, strict=True))
    return Unrolled(_stack(b, times, source), final)


def _lstm(b: Builder, cell: Cell, x: int, state: State, source: str) -> State:
    """c' = f c + i g, h' = o tanh(c')."""
    h, c = state
    gates = _sum(b, _input(b, cell, x, source), _hidden(b, cell, h, source), source)
    i, f, g, o = _split(b, gates, 4, source)
    i, f, o = (b.add(Sigmoid(), gate, source=source) for gate in (i, f, o))
    new = b.add(Mul(), i, b.add(Tanh(), g, source=source), source=source)
    new = b.add(Sum(), b.add(Mul(), f, c, source=source), new, source=source)
    return b.add(Mul(), o, b.add(Tanh(), new, source=source), source=source), new


def _gru_after(b: Builder, cell: Cell, x: int, state: State, source: str) -> State:
    """n = tanh(W x + r (U h + c)), h' = n + z (h - n)."""
    hidden = _split(b, _hidden(b, cell, state[0], source), 3, source)
    inner = _split(b, _input(b, cell, x, source), 3, source)
    r, z = (b.add(Sigmoid(), _sum(b, inner[k], hidden[k], source), source=source) for k in (0, 1))
    kept = b.add(Mul(), r, hidden[2], source=source)
    n = b.add(Tanh(), _sum(b, inner[2], kept, source), source=source)
    return (_blend(b, z, n, state[0], source),)


def _gru_before(b: Builder, cell: Cell, x: int, state: State, source: str) -> State:
    """n = tanh(W x + U (r h) + c), h' = n + z (h - n)."""
    hidden = _split(b, _hidden(b, cell, state[0], source), 3, source)
    inner = _split(b, _input(b, cell, x, source), 3, source)
    r, z = (b.add(Sigmoid(), _sum(b, inner[k], hidden[k], source), source=source) for k in (0, 1))
    kept = b.add(Mul(), r, state[0], source=source)
    hidden = _split(b, _hidden(b, cell, kept, source), 3, source)
    n = b.add(Tanh(), _sum(b, inner[2], hidden[2], source), source=source)
    return (_blend(b, z, n, state[0], source),)


def _blend(b: Builder, z: int, n: int, h: int, source: str) -> int:
    """n + z (h - n): one product, whose plane is tighter than those of (1 - z) n and z h."""
    gap = b.add(Sum(-1.0), h, n, source=source)
    return _sum(b, n, b.add(Mul(), z, gap, source=source), source)


def _simple(activation: Op) -> Step:
    """h' = activation(W x + U h)."""

    def step(b: Builder, cell: Cell, x: int, state: State, source: str) -> State:
        both = _sum(b, _input(b, cell, x, source), _hidden(b, cell, state[0], source), source)
        return (b.add(activation, both, source=source),)

    return step


def _start(b: Builder, cell: Cell, x: int, state: int | None, index: int, source: str) -> int:
    """The state at the start; zeros are 0 x."""
    if state is not None:
        return b.add(Select(1, index), state, source=source)
    zeros = b.like.new_zeros(_width(cell.hidden), b.shape(x)[0])
    return b.add(Linear(zeros), x, source=source)


def _width(hidden: Tensor) -> int:
    """H of hidden weights [gates * H, H], which may be computed from other parameters."""
    value = hidden.evaluate() if isinstance(hidden, Expression) else hidden
    return value.shape[1]


def _input(b: Builder, cell: Cell, x: int, source: str) -> int:
    return b.add(Linear(cell.inner, cell.bias), x, source=source)


def _hidden(b: Builder, cell: Cell, h: int, source: str) -> int:
    return b.add(Linear(cell.hidden, cell.hidden_bias), h, source=source)


def _sum(b: Builder, x: int, y: int, source: str) -> int:
    return b.add(Sum(), x, y, source=source)


def _split(b: Builder, gates: int, count: int, source: str) -> list[int]:
    """Equal parts of a vector."""
    size = b.shape(gates)[0] // count
    return [b.add(Slice(1, k * size, (k + 1) * size), gates, source=source) for k in range(count)]


def _stack(b: Builder, positions: list[int], source: str) -> int:
    """Vectors [H] as the rows of a matrix [count, H]."""
    rows = [b.add(Reshape((1, *b.shape(p))), p, source=source) for p in positions]
    return rows[0] if len(rows) == 1 else b.add(Concat(1), *rows, source=source)
