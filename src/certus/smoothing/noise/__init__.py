"""Noise distributions, each with the radius that its smoothed classifier is proven for."""

from certus.smoothing.noise.base import Noise as Noise
from certus.smoothing.noise.gaussian import Gaussian as Gaussian
