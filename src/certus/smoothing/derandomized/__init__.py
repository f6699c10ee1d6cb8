"""Smoothing without chance: finite sets of copies, each with the radius that its counts prove."""

from certus.smoothing.derandomized.base import Derandomized as Derandomized
