"""Exact verification."""

from certus.verifiers.lp import LP as LP
from certus.verifiers.milp import Milp as Milp
from certus.verifiers.milp import Minimum as Minimum
