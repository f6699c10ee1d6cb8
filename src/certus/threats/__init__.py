"""Threats (what an adversary may do) and regions (the inputs that this allows)."""

from certus.threats.ball import Ball as Ball
from certus.threats.box import Box as Box
from certus.threats.norms import L0 as L0
from certus.threats.norms import L1 as L1
from certus.threats.norms import L2 as L2
from certus.threats.norms import NORMS as NORMS
from certus.threats.norms import L0Pixels as L0Pixels
from certus.threats.norms import Linf as Linf
from certus.threats.norms import NormBall as NormBall
from certus.threats.norms import Patch as Patch
from certus.threats.norms import Threat as Threat
from certus.threats.norms import parse as parse
from certus.threats.patch import Patched as Patched
from certus.threats.product import Product as Product
from certus.threats.region import Region as Region
from certus.threats.sparse import Sparse as Sparse
from certus.threats.transformed import Transformed as Transformed
