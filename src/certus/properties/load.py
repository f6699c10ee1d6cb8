"""load_property: VNN-LIB text or file -> Problem."""

from pathlib import Path

from certus.core import validate
from certus.graph import Graph
from certus.properties.assemble import assemble
from certus.properties.parser import parse
from certus.properties.problem import Problem
from certus.properties.source import read


def load_property(
    source: str | Path, graph: Graph | None = None, *, limit: int = 200_000
) -> Problem:
    """Read a VNN-LIB 1.0 property from a file (plain or gzipped) or from its text.

    Numbers are read exactly and rounded once, to the nearest float64: a bound of 0.1 is the float64
    number that is written 0.1. The formula is expanded to a disjunction of at most `limit` conjunctions.
    Bounds of single inputs make the boxes; boxes that are empty are dropped, equal ones merged. With a
    graph, the numbers of inputs and outputs are compared.

    Raises FileError for text that cannot be read, with the line and what was expected, and
    UnsupportedError for an unbounded input, an expansion above the limit and VNN-LIB 2.0.
    """
    parsed = parse(read(source))
    cases = assemble(parsed, validate.count(limit, "limit"))
    problem = Problem(parsed.inputs, parsed.outputs, cases)
    return problem if graph is None else problem.attached(graph)
