"""An imported graph against onnxruntime."""

import torch

from certus.core import CertusError, ModelError
from certus.graph.agreement import ORDINARY, difference, probes
from certus.graph.graph import Graph
from certus.graph.onnx.runtime import OnnxModel

_TOLERANCE = 1e-4  # of an output's spread


def compare(graph: Graph) -> None:
    """Raise ModelError where the graph and its original differ (see `agreement`).

    Inputs are ordinary, whole numbers and vertices, large and tiny; those on which onnxruntime gives
    NaN or infinite values say nothing.
    """
    x = probes(graph.input_shape, torch.zeros((), dtype=graph.original.dtype))  # type: ignore[attr-defined]
    worst = difference(graph, x, graph.original(x), ORDINARY)
    if worst is None:
        raise ModelError(
            "the network gives NaN or infinite values on every random input, so the import cannot be "
            "compared with onnxruntime"
        )
    if worst > 0:
        raise ModelError(
            f"the imported graph differs from onnxruntime by {worst:.2g} relative on random inputs; "
            "this is an error of the importer, please report it with the file"
        )


def takes_batches(model: OnnxModel, graph: Graph) -> bool:
    """Whether the file itself gives the same for several inputs at once as for each alone."""
    x = probes(graph.input_shape, torch.zeros((), dtype=model.dtype))[:ORDINARY]
    alone = model(x)
    model.batched = True
    try:
        together = model(x)
    except (CertusError, ValueError):
        return False
    finally:
        model.batched = False
    if together.shape != alone.shape or not bool(torch.isfinite(alone).all()):
        return False
    spread = (alone - alone.mean(0)).abs().amax()
    return bool((together - alone).abs().max() <= _TOLERANCE * spread)
