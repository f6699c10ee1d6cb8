"""Bound propagation: intervals, CROWN, CROWN-IBP, and combinations of methods."""

from certus.bounding.alpha_crown import AlphaCrown as AlphaCrown
from certus.bounding.base import BoundMethod as BoundMethod
from certus.bounding.base import margin_rows as margin_rows
from certus.bounding.cases import Cases as Cases
from certus.bounding.combine import Chunked as Chunked
from certus.bounding.combine import Tightest as Tightest
from certus.bounding.crown import Crown as Crown
from certus.bounding.crown import crown_ibp as crown_ibp
from certus.bounding.dual import wong_kolter as wong_kolter
from certus.bounding.fixed_slopes import DEEPPOLY as DEEPPOLY
from certus.bounding.fixed_slopes import FAST_LIN as FAST_LIN
from certus.bounding.forward import Forward as Forward
from certus.bounding.interval import IBP as IBP
from certus.bounding.rounding import rounding_guard as rounding_guard
from certus.bounding.rounding_masked import masked_softmax as masked_softmax
from certus.bounding.rounding_products import Errors as Errors
from certus.bounding.sdp_crown import SdpCrown as SdpCrown
from certus.bounding.zonotope import DeepZ as DeepZ
