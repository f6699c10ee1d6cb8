"""Claim: what a row of results says, about which function, against whom, and how surely."""

from dataclasses import dataclass
from typing import Any

from certus.core.errors import ArgumentError
from certus.core.kinds import KIND, parsed, text

CERTIFICATE, EXACT, ATTACK = "certificate", "exact", "attack"
CLAIMS = (CERTIFICATE, EXACT, ATTACK)
"""A certificate may leave open what is true, an exact method leaves nothing open but for its time, an
attack certifies nothing."""

NETWORK = text({KIND: "Network"})
"""The subject of claims about the network itself."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the answers of one run have in common, in texts of JSON that are equal where they mean the same.

    kind: one of CLAIMS. subject: the function that is spoken of: NETWORK, or what is made of the network,
    such as {"kind": "Smoothed", "noise": {...}}; answers are compared only where it is the same. threat:
    what the adversary may do; of a ball whose eps is null the answers are radii. alpha: the chance that a
    single answer is wrong, 0 for proofs and replayed counterexamples. method: its short name; settings:
    all of its settings.
    """

    kind: str
    subject: str = NETWORK
    threat: str
    alpha: float = 0.0
    method: str
    settings: str

    def __post_init__(self) -> None:
        """Refuse what says nothing: ArgumentError."""
        if self.kind not in CLAIMS:
            raise ArgumentError(f"a claim is one of {', '.join(CLAIMS)}, got {self.kind!r:.40}")
        if not 0.0 <= self.alpha < 1.0:
            raise ArgumentError(f"alpha must lie in [0, 1), got {self.alpha}")
        for name in ("subject", "threat", "settings"):
            if not isinstance(parsed(getattr(self, name)), dict):
                raise ArgumentError(f"the {name} of a claim must be a JSON object")


def same_subject(one: str, other: str) -> bool:
    """Whether two subjects may be one function.

    A smoothed classifier whose noise is not told (of rows from older versions) may be any of its kind.
    """
    if one == other:
        return True
    a, b = parsed(one), parsed(other)
    return a.get(KIND) == b.get(KIND) == "Smoothed" and None in (_noise(a), _noise(b))


def smoothed_by(noise: Any) -> str:
    """The subject of claims about the network smoothed by this noise; None where it is not known."""
    return text({KIND: "Smoothed", "noise": noise})


def _noise(subject: dict[str, Any]) -> Any:
    return subject.get("noise")
