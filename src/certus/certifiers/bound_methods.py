"""The bound methods by name: the one table behind `certus.bounds(..., method="...")`."""

import re
from typing import Any

from certus.bounding import (
    DEEPPOLY,
    FAST_LIN,
    IBP,
    AlphaCrown,
    BoundMethod,
    Crown,
    DeepZ,
    Forward,
    SdpCrown,
    Tightest,
    crown_ibp,
    wong_kolter,
)
from certus.verifiers import LP


def fast_lin(memory: int | None = None) -> Crown:
    """CROWN with parallel lines for ReLU (Weng et al. 2018)."""
    return Crown(slopes=FAST_LIN, memory=memory)


def deeppoly(memory: int | None = None) -> Crown:
    """CROWN with the slopes of DeepPoly (Singh et al. 2019)."""
    return Crown(slopes=DEEPPOLY, memory=memory)


def tightest(memory: int | None = None) -> Tightest:
    """The better of interval arithmetic and CROWN, bound by bound."""
    return Tightest(IBP(memory=memory), Crown(memory=memory))


# name -> a BoundMethod class, or a function that makes one
BOUNDS: dict[str, Any] = {
    "ibp": IBP,
    "zonotope": DeepZ,
    "forward": Forward,
    "crown-ibp": crown_ibp,
    "fast-lin": fast_lin,
    "wong-kolter": wong_kolter,
    "deeppoly": deeppoly,
    "crown": Crown,
    "alpha-crown": AlphaCrown,
    "sdp-crown": SdpCrown,
    "lp": LP,
    "tightest": tightest,
}


def name_of(method: BoundMethod) -> str:
    """The table's name of a method or of its class; of another class its own, as in `my-method`."""
    known = (name for name, make in BOUNDS.items() if make is type(method) or make() == method)
    own = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(method).__name__).lower()
    return next(known, own)
