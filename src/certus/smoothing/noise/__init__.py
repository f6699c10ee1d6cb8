"""Noise distributions, each with the radius that its smoothed classifier is proven for."""

from certus.smoothing.noise.ablation import Ablation as Ablation
from certus.smoothing.noise.ablation import PixelAblation as PixelAblation
from certus.smoothing.noise.anisotropic import AnisotropicGaussian as AnisotropicGaussian
from certus.smoothing.noise.base import Noise as Noise
from certus.smoothing.noise.conversion import converted as converted
from certus.smoothing.noise.conversion import convertible as convertible
from certus.smoothing.noise.elastic_gaussian import ElasticGaussian as ElasticGaussian
from certus.smoothing.noise.flips import Flips as Flips
from certus.smoothing.noise.gaussian import Gaussian as Gaussian
from certus.smoothing.noise.general_gaussian import GeneralGaussian as GeneralGaussian
from certus.smoothing.noise.integer_gaussian import IntegerGaussian as IntegerGaussian
from certus.smoothing.noise.laplace import Laplace as Laplace
from certus.smoothing.noise.sparse_flips import SparseFlips as SparseFlips
from certus.smoothing.noise.truncated import Truncated as Truncated
from certus.smoothing.noise.truncated import fitted_cut as fitted_cut
from certus.smoothing.noise.uniform import Uniform as Uniform
