"""Method names to certifiers: the one table behind every `method="..."`."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from inspect import signature
from typing import Any

from certus.certifiers.attack import ATTACKS, AttackCertifier
from certus.certifiers.auto import AutoCertifier
from certus.certifiers.base import Certifier
from certus.certifiers.bound_methods import BOUNDS
from certus.certifiers.bounds import BoundCertifier
from certus.certifiers.lipschitz import LipschitzCertifier
from certus.certifiers.milp import MilpCertifier
from certus.certifiers.smoothed_attack import SmoothedAttackCertifier
from certus.certifiers.smoothing import SmoothingCertifier
from certus.core import ArgumentError
from certus.smoothing import Gaussian


def look_up(table: dict[str, Any], name: str, options: dict[str, Any]) -> Any:
    """Build what the table holds under a name; ArgumentError lists the names or the options."""
    if name not in table:
        raise ArgumentError(f"unknown method {name!r}; there are: {', '.join(table)}")
    kind = table[name]
    if isinstance(kind, partial):  # it looks its options up itself
        return kind(**options)
    known = (
        [f.name for f in fields(kind)]
        if isinstance(kind, type)
        else list(signature(kind).parameters)
    )
    strange = [option for option in options if option not in known]
    if strange:
        raise ArgumentError(
            f"{name} has no option {', '.join(strange)}; it takes: {', '.join(known) or 'none'}"
        )
    return kind(**options)


def _bound(name: str, block: int = BoundCertifier.block, **options: Any) -> BoundCertifier:
    """The certifier of a bound method, with the method's options."""
    return BoundCertifier(name=name, method=look_up(BOUNDS, name, options), block=block)


def _attack(name: str, block: int = AttackCertifier.block, **options: Any) -> AttackCertifier:
    """An attack as a member of the family, with the attack's options."""
    return AttackCertifier(attack=look_up(ATTACKS, name, options), block=block)


# what may verify
CERTIFIERS: dict[str, Callable[..., Certifier]] = {
    "auto": AutoCertifier,
    **{name: partial(_bound, name) for name in BOUNDS},
    "lipschitz": LipschitzCertifier,
    "smoothing": SmoothingCertifier,
    "milp": MilpCertifier,
}
# and what refutes alone
REFUTERS: dict[str, Callable[..., Certifier]] = {
    **{name: partial(_attack, name) for name in ATTACKS},
    SmoothedAttackCertifier.name: SmoothedAttackCertifier,
}


def about(name: str) -> str:
    """What a certifier of the table does: one line."""
    return (BOUNDS.get(name, CERTIFIERS[name]).__doc__ or "").strip().splitlines()[0]


def certifier(name: str, **options: Any) -> Certifier:
    """A certifier by name, such as certifier("milp", timeout=30.0).

    Those of bound methods and of attacks take the options of these: certifier("crown", rigorous=True).
    sigma=0.25 is short for noise=Gaussian(0.25).
    """
    if name == SmoothingCertifier.name and "sigma" in options:
        if "noise" in options:
            raise ArgumentError("give sigma or noise, not both: sigma is that of Gaussian noise")
        options["noise"] = Gaussian(options.pop("sigma"))
    built = look_up(CERTIFIERS | REFUTERS, name, options)
    assert isinstance(built, Certifier)
    return built
