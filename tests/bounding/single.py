"""Activations, and graphs of one operation."""

import numpy as np
import torch

from certus.graph import Graph
from certus.graph.activation import Clamp, LeakyRelu, Relu, Sigmoid, Tanh
from certus.graph.builder import Builder
from certus.graph.structural import (
    Reshape,
    Slice,
)

DTYPES = [torch.float32, torch.float64]
F32, F64 = DTYPES


ACTIVATIONS = {
    "relu": Relu(),
    "leaky": LeakyRelu(0.1),
    "leaky-zero": LeakyRelu(0.0),
    "clamp": Clamp(-0.3, 0.7),
    "relu6": Clamp(0.0, 6.0),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
}


def alone(op, shapes, dtype=F32):
    """A graph of one operation; several inputs are slices of one flat input."""
    flat = sum(int(np.prod(s)) for s in shapes)
    example = torch.zeros(1, *(shapes[0] if len(shapes) == 1 else (flat,)), dtype=dtype)
    b = Builder(tuple(example.shape[1:]), example)
    places, start = [], 0
    for shape in shapes:
        if len(shapes) == 1:
            places = [0]
            break
        stop = start + int(np.prod(shape))
        places.append(b.add(Reshape(shape), b.add(Slice(1, start, stop), 0)))
        start = stop
    graph: Graph = b.finish(b.add(op, *places), lambda x: x)
    return graph
