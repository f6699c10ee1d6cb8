"""Certus: certified adversarial robustness of neural networks."""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from certus.api import attack as attack
from certus.api import bounds as bounds
from certus.api import certify as certify
from certus.bounding import IBP as IBP
from certus.bounding import BoundMethod as BoundMethod
from certus.bounding import Cases as Cases
from certus.bounding import Chunked as Chunked
from certus.bounding import Crown as Crown
from certus.bounding import Tightest as Tightest
from certus.bounding import crown_ibp as crown_ibp
from certus.certifiers import Certifier as Certifier
from certus.core import ArgumentError as ArgumentError
from certus.core import Bounds as Bounds
from certus.core import Certificates as Certificates
from certus.core import CertusError as CertusError
from certus.core import ContradictionError as ContradictionError
from certus.core import FileError as FileError
from certus.core import Model as Model
from certus.core import ModelError as ModelError
from certus.core import Reason as Reason
from certus.core import UnsupportedError as UnsupportedError
from certus.core import Verdict as Verdict
from certus.graph import Graph as Graph
from certus.graph import trace as trace
from certus.graph.onnx import load as load
from certus.properties import Problem as Problem
from certus.properties import load_property as load_property
from certus.smoothing import Gaussian as Gaussian
from certus.smoothing import Smoothed as Smoothed
from certus.threats import L0 as L0
from certus.threats import L1 as L1
from certus.threats import L2 as L2
from certus.threats import Box as Box
from certus.threats import Linf as Linf
from certus.threats import Patch as Patch
from certus.threats import Region as Region
from certus.threats import Transformed as Transformed

try:
    __version__ = _version("certus")
except _PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0.0.0"
