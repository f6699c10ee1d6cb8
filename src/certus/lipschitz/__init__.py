"""Certified L2 radii from Lipschitz constants, and layers that are 1-Lipschitz by their weights."""

from certus.lipschitz.constant import lipschitz as lipschitz
from certus.lipschitz.constant import refusal as refusal
from certus.lipschitz.layers import OrthogonalLinear as OrthogonalLinear
from certus.lipschitz.layers import SpectralConv2d as SpectralConv2d
from certus.lipschitz.layers import SpectralLinear as SpectralLinear
from certus.lipschitz.layers import baked as baked
from certus.lipschitz.margin import LipschitzMargin as LipschitzMargin
from certus.lipschitz.margin import certified_radius as certified_radius
from certus.lipschitz.margin import prepare as prepare
from certus.lipschitz.spectrum import conv_bound as conv_bound
from certus.lipschitz.spectrum import dense_bound as dense_bound
