"""The facade: trace, bounds, certify and attack in one call each."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from certus.attacks import Attack
from certus.bounding import BoundMethod
from certus.certifiers import ATTACKS, BoundCertifier, Certifier
from certus.certifiers.bound_methods import BOUNDS
from certus.certifiers.table import certifier, look_up
from certus.core import (
    ArgumentError,
    AttackResult,
    Bounds,
    Certificates,
    Model,
    Progress,
    UnsupportedError,
    as_model,
)
from certus.core.numerics import sound
from certus.core.progress import silent
from certus.core.validate import inputs as check_inputs
from certus.graph import Graph, trace
from certus.smoothing import Smoothed
from certus.threats import Region, Threat

Module = Graph | nn.Module


def bounds(
    model: Module,
    x: Tensor | Region,
    threat: Threat | None = None,
    method: str | BoundMethod = "crown",
    spec: Tensor | None = None,
    **options: Any,
) -> Bounds:
    """Lower and upper bounds of a model's outputs over the inputs that a threat allows.

    model: an nn.Module in evaluation mode or a Graph. x: [B, *shape] with a threat, or a Region that
    stands for both. method: a name (`certus methods` lists them) with its options as keywords, such as
    iterations=50 or memory=2**30 (bytes), or a BoundMethod. spec: [B, R, K] or
    [1, R, K] rows of linear functionals of the output, default the outputs themselves. Returns lower
    and upper [B, *output] (or [B, R]); -inf and inf where a bound came out NaN, infinite or crossed.
    Holds in exact arithmetic. Raises ArgumentError, ModelError, UnsupportedError.
    """
    region = _region(x, threat)
    if not isinstance(method, str) and options:
        raise ArgumentError("options belong to a method's name; configure a BoundMethod itself")
    chosen = look_up(BOUNDS, method, options) if isinstance(method, str) else method
    _expect(chosen, BoundMethod)
    graph = _graph(model, region.center)
    graph.refuse_changed()
    _check_fit(graph, region.center, spec)
    with torch.no_grad():
        found = chosen(graph, region, spec)
    usable = sound(found.lower, found.upper)
    inf = torch.full_like(found.lower, float("inf"))
    return Bounds(torch.where(usable, found.lower, -inf), torch.where(usable, found.upper, inf))


def certify(
    model: Model | Callable[[Tensor], Tensor] | Smoothed,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    method: str | Certifier | BoundMethod = "auto",
    timeout: float = 60.0,
    *,
    ids: Sequence[int] | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Certificates:
    """For each input a certificate, a replayed counterexample, or "unknown" with its reason.

    x [B, *shape] in the model's dtype, y [B] integer labels; pass model(x).argmax(1) to certify that
    the prediction is stable. method: a name of `certus methods`, with its options as keywords (for
    a bound method those of `bounds`, such as memory or rigorous), a BoundMethod or a Certifier. A
    Smoothed model is certified by smoothing. timeout: seconds, for the methods that search (auto: in
    all, milp: per input). Raises ArgumentError, ModelError, UnsupportedError before any work; what
    happens later becomes "unknown".
    """
    if isinstance(model, Smoothed):
        method, options, model = _smoothing(model, method, options)
    if isinstance(method, str):
        if method in ("auto", "milp"):
            options = {"timeout": timeout} | options
        method = certifier(method, **options)
    elif options:
        raise ArgumentError("options belong to a method's name; configure a Certifier itself")
    if isinstance(method, BoundMethod):
        method = BoundCertifier(method=method)
    _expect(method, Certifier)
    _expect_threat(threat)
    assert isinstance(method, Certifier)
    return method(_asked(model, x, threat, method), x, y, threat, ids, progress)


def attack(
    model: Model | Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    threat: Threat,
    method: str | Attack = "pgd",
    *,
    ids: Sequence[int] | None = None,
    **options: Any,
) -> AttackResult:
    """Search the threat's region for inputs that the model gets wrong.

    Every success is re-checked here: inside the region with zero tolerance, wrong on the original
    model. No success proves nothing. method: "pgd" or "fgsm" with options such as steps, restarts,
    seed; or an Attack. Raises ArgumentError and ModelError.
    """
    if not isinstance(method, str) and options:
        raise ArgumentError("options belong to a method's name; configure an Attack itself")
    chosen = look_up(ATTACKS, method, options) if isinstance(method, str) else method
    _expect(chosen, Attack)
    found: AttackResult = chosen(model, x, y, threat, ids)
    return found


def _expect(method: object, kind: type) -> None:
    if not isinstance(method, kind):
        raise ArgumentError(
            f"method must be a name or a {kind.__name__}, got {type(method).__name__}"
        )


def _smoothing(
    model: Smoothed, method: str | Certifier | BoundMethod, options: dict[str, Any]
) -> tuple[str, dict[str, Any], Callable[[Tensor], Tensor]]:
    """Method, options and network that certify a Smoothed model."""
    if method not in ("auto", "smoothing"):
        raise ArgumentError("a Smoothed model is certified by smoothing; leave method out")
    own = {"noise": model.noise, "seed": model.seed, "batch": model.batch}
    return "smoothing", own | options, model.module


def _asked(model: object, x: Tensor, threat: Threat, method: Certifier) -> Model:
    """A module as a Graph, or as a plain function where it has none and the method does without."""
    check_inputs(x)
    known = as_model(model, x)
    if not isinstance(model, nn.Module):
        return known
    try:
        return trace(model, x[:1])
    except UnsupportedError:
        if method.accepts(known, threat) is None:
            return known
        raise


def _check_fit(graph: Graph, x: Tensor, spec: Tensor | None) -> None:
    """Inputs and functionals in the shape and dtype that the graph computes with."""
    check_inputs(x, graph.input_shape)
    if x.dtype != graph.dtype:
        raise ArgumentError(f"inputs are {x.dtype}, the model computes in {graph.dtype}")
    if spec is None:
        return
    outputs = torch.Size(graph.output_shape).numel()
    fits = isinstance(spec, Tensor) and spec.ndim == 3 and spec.shape[2] == outputs
    if not fits or spec.shape[0] not in (1, len(x)) or spec.dtype != x.dtype:
        raise ArgumentError(f"spec must be {x.dtype} [{len(x)} or 1, R, {outputs}]")


def _graph(model: Module, x: Tensor) -> Graph:
    if isinstance(model, Graph):
        return model
    return trace(model, x[:1])


def _region(x: Tensor | Region, threat: Threat | None) -> Region:
    if isinstance(x, Region):
        if threat is not None:
            raise ArgumentError("a Region stands for the inputs and the threat; pass no threat")
        return x
    if threat is None:
        raise ArgumentError("bounds needs a threat such as certus.Linf(0.1), or a Region")
    check_inputs(x)
    _expect_threat(threat)
    return threat.region(x)


def _expect_threat(threat: object) -> None:
    if not hasattr(threat, "region"):
        raise ArgumentError(f"expected a threat such as certus.Linf(0.1), got {threat!r}")
