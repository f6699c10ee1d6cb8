"""Exact verification."""

from certus.verifiers.milp import Milp as Milp
from certus.verifiers.milp import Minimum as Minimum
