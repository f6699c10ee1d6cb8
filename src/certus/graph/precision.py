"""Types of values in an exported program: what a graph over one floating type can stand for.

A graph computes in the network's own type. Another floating type rounds elsewhere, a type of whole
numbers cuts off and wraps around; none of this is the identity, so it is written out or refused.
"""

import torch

from certus.graph.builders import Arguments, Unsupported
from certus.graph.whole import LIMITS, TRUTH

_CASTS = ("to.", "_to_copy.", "type_as.", "prims.convert_element_type.")
_MOVES = (
    "view.",
    "reshape.",
    "unsqueeze.",
    "squeeze.",
    "expand.",
    "permute.",
    "transpose.",
    "clone.",
)
_PLACES = ("argmax.", "bucketize.")
_LOGIC = ("logical_", "bitwise_", "__and__.", "__or__.")
_TRUTHS = ("gt.", "ge.", "lt.", "le.", "eq.", "ne.")


def admissible(a: Arguments) -> None:
    """Raise Unsupported where a result has a type that the graph would not compute as the model does."""
    values = a.node.meta["val"]
    single = isinstance(values, torch.Tensor)
    for value in [values] if single else list(values):
        if isinstance(value, torch.Tensor) and not _choice(a, value.dtype):
            _float(value.dtype, a.scope.builder.like.dtype)
    if not single or values.is_floating_point() or values.is_complex():
        return
    floats = any(
        a.is_data(n) and n.meta["val"].is_floating_point()
        for n in a.node.all_input_nodes
        if isinstance(n.meta.get("val"), torch.Tensor)
    )
    own = _TRUTHS if values.dtype == torch.bool else _PLACES
    if floats and not a.target.startswith((*own, *_CASTS)):
        raise Unsupported(f"it turns floating-point values into {name_of(values.dtype)}")


def limits(a: Arguments) -> tuple[float, float] | None:
    """What the (single) result must lie in, where arithmetic on whole numbers may leave their type.

    A sum of conditions is a condition in torch: true and true is 1, not 2.
    """
    value = a.node.meta["val"]
    if not isinstance(value, torch.Tensor) or a.target.startswith((*_CASTS, *_PLACES)):
        return None
    if value.dtype == torch.bool:
        return None if a.target.startswith((*_TRUTHS, *_LOGIC)) else TRUTH
    return LIMITS.get(name_of(value.dtype))


def name_of(dtype: torch.dtype) -> str:
    """float16 for torch.float16."""
    return str(dtype).removeprefix("torch.")


def _choice(a: Arguments, found: torch.dtype) -> bool:
    """Whether the result only holds constants of a shorter type, picked by conditions on the input."""
    network = a.scope.builder.like.dtype
    shorter = found.is_floating_point and torch.finfo(found).bits < torch.finfo(network).bits
    data = [n.meta["val"].dtype for n in a.node.all_input_nodes if a.is_data(n)]
    if a.target.startswith(_MOVES):
        return shorter and data == [found]
    return shorter and a.target.startswith((*_CASTS, "where.")) and set(data) == {torch.bool}


def _float(found: torch.dtype, network: torch.dtype) -> None:
    if (found.is_floating_point or found.is_complex) and found.to_real() != network:
        raise Unsupported(
            f"a change of precision: its result is {name_of(found)} in a {name_of(network)} network; "
            "keep the whole model in one type"
        )
