"""LSTM, GRU and RNN layers, unrolled; one sequence at a time (the ONNX batch is 1)."""

from typing import Any

import numpy as np
from torch import Tensor

from certus.graph import composite
from certus.graph.onnx.build_moves import as_data
from certus.graph.onnx.table import Call, Unsupported, builds
from certus.graph.onnx.values import Data
from certus.graph.structural import Flip

# torch's order of the gates in terms of ONNX's: iofc -> ifco, zrh -> rzh
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_DEFAULTS = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}


@builds("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> list[Data]:
    op, x = call.node.op, call.data()
    relu = _checked(call)
    steps, batch, features = (
        x.shape if not call.attribute("layout", 0) else (x.shape[1], x.shape[0], x.shape[2])
    )
    if batch != 1:
        raise Unsupported("several sequences at once")
    direction, hidden = call.attribute("direction", "forward"), int(call.attribute("hidden_size"))
    weights, biases = _weights(call, hidden)
    count = 2 if direction == "bidirectional" else 1
    writer, position = call.writer, call.at(x, (steps, features))
    if direction == "reverse":
        position = writer.add(Flip((1,)), position)
    settings: dict[str, Any] = {"biases": biases, "bidirectional": count == 2}
    state = _state(call, 5, count, hidden)
    if op == "LSTM":
        memory = _state(call, 6, count, hidden)
        settings["state"] = _both(call, state, memory, (count, hidden))
        found = composite.lstm(writer, position, weights, **settings)
    elif op == "GRU":
        after = bool(call.attribute("linear_before_reset", 0))
        found = composite.gru(writer, position, weights, state=state, reset_after=after, **settings)
    else:
        layer = composite.rnn_relu if relu else composite.rnn_tanh
        found = layer(writer, position, weights, state=state, **settings)
    output = found.output
    if direction == "reverse":
        output = writer.add(Flip((1,)), output)
    if call.attribute("layout", 0):
        shapes = [(1, steps, count, hidden), (1, count, hidden)]
    else:
        shapes = [(steps, count, 1, hidden), (count, 1, hidden)]
    last = [Data(p, shapes[1]) for p in found.states]
    return [Data(output, shapes[0]), *last]


def _checked(call: Call) -> bool:
    """Refuse variants without a counterpart; whether an RNN uses ReLU."""
    op = call.node.op
    names = list(call.attribute("activations", []))
    names = [n.decode() if isinstance(n, bytes) else n for n in names]
    default = _DEFAULTS[op]
    relu = op == "RNN" and bool(names) and set(names) == {"Relu"}
    if names and not relu and names not in (default, default * 2):
        raise Unsupported(f"activations {names}")
    if (
        call.attribute("clip") is not None
        or call.attribute("input_forget", 0)
        or call[7] is not None
    ):
        raise Unsupported("clipped cells, coupled gates or peepholes")
    lengths = call[4]
    if lengths is not None and set(np.asarray(call.array(4)).reshape(-1)) != {
        call.data().shape[1 if call.attribute("layout", 0) else 0]
    }:
        raise Unsupported("sequences of different lengths")
    return relu


def _weights(call: Call, hidden: int) -> tuple[list[Tensor], bool]:
    """torch's flat list of weights, and whether there are biases."""
    inner, outer, bias = call.array(1), call.array(2), call.array(3)
    order = _GATES[call.node.op]

    def gates(matrix: Any) -> Tensor:
        parts = np.split(matrix, len(order))
        return call.tensor(np.concatenate([parts[i] for i in order]))

    flat: list[Tensor] = []
    for d in range(len(inner)):
        flat += [gates(inner[d]), gates(outer[d])]
        if bias is not None:
            flat += [gates(part) for part in np.split(bias[d], 2)]
    if inner.shape[1] != hidden * len(order):
        raise Unsupported("weights that do not fit the hidden size")
    return flat, bias is not None


def _state(call: Call, index: int, count: int, hidden: int) -> int | None:
    """A starting state [directions, H]; None where it is absent or zero."""
    value = call[index]
    if value is None or (isinstance(value, np.ndarray) and not value.any()):
        return None
    return call.at(as_data(call, value), (count, hidden))


def _both(
    call: Call, state: int | None, memory: int | None, shape: tuple[int, int]
) -> tuple[int, int] | None:
    """Both states of an LSTM, or None where both are zero."""
    if state is None and memory is None:
        return None
    found = [
        call.at(as_data(call, np.zeros(shape)), shape) if value is None else value
        for value in (state, memory)
    ]
    return found[0], found[1]
