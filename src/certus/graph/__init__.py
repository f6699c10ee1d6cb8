"""Networks as graphs of operations: capability classes, capture, batch-norm statistics."""

from certus.graph.capture import trace as trace
from certus.graph.graph import Graph as Graph
from certus.graph.graph import Node as Node
