"""Method names to certifiers: the one table behind every `method="..."`."""

from dataclasses import fields
from inspect import signature
from typing import Any

from certus.certifiers import bounds
from certus.certifiers.auto import AutoCertifier
from certus.certifiers.base import Certifier
from certus.certifiers.bound_methods import BOUNDS
from certus.certifiers.lipschitz import LipschitzCertifier
from certus.certifiers.milp import MilpCertifier
from certus.certifiers.smoothing import SmoothingCertifier
from certus.core import ArgumentError
from certus.smoothing import Gaussian

CERTIFIERS: dict[str, type[Certifier]] = {
    kind.name: kind
    for kind in (
        AutoCertifier,
        bounds.IntervalCertifier,
        bounds.ZonotopeCertifier,
        bounds.ForwardCertifier,
        bounds.CrownIbpCertifier,
        bounds.FastLinCertifier,
        bounds.WongKolterCertifier,
        bounds.DeeppolyCertifier,
        bounds.CrownCertifier,
        bounds.AlphaCrownCertifier,
        bounds.SdpCrownCertifier,
        bounds.LpCertifier,
        LipschitzCertifier,
        SmoothingCertifier,
        MilpCertifier,
    )
}


def look_up(table: dict[str, Any], name: str, options: dict[str, Any]) -> Any:
    """Build what the table holds under a name; ArgumentError lists the names or the options."""
    if name not in table:
        raise ArgumentError(f"unknown method {name!r}; there are: {', '.join(table)}")
    kind = table[name]
    known = (
        [f.name for f in fields(kind)]
        if isinstance(kind, type)
        else list(signature(kind).parameters)
    )
    if isinstance(kind, type) and issubclass(kind, bounds.BoundCertifier):
        options = _shared_out(name, known, options)
    strange = [option for option in options if option not in known]
    if strange:
        raise ArgumentError(
            f"{name} has no option {', '.join(strange)}; it takes: {', '.join(known) or 'none'}"
        )
    return kind(**options)


def _shared_out(name: str, known: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Options that are not the certifier's own go to its bound method, such as rigorous=True."""
    rest = {option: value for option, value in options.items() if option not in known}
    own = {option: value for option, value in options.items() if option in known}
    return (
        own | {"method": look_up(BOUNDS, name, rest)} if rest and "method" not in own else options
    )


def certifier(name: str, **options: Any) -> Certifier:
    """A certifier by name, such as certifier("milp", timeout=30.0).

    Those of bound methods take the options of the method: certifier("crown", rigorous=True).
    sigma=0.25 is short for noise=Gaussian(0.25).
    """
    if name == SmoothingCertifier.name and "sigma" in options:
        if "noise" in options:
            raise ArgumentError("give sigma or noise, not both: sigma is that of Gaussian noise")
        options["noise"] = Gaussian(options.pop("sigma"))
    built = look_up(CERTIFIERS, name, options)
    assert isinstance(built, Certifier)
    return built
