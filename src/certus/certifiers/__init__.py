"""Certifiers: one adapter for each family of method, all answering with Certificates."""

from certus.certifiers.attack import ATTACKS as ATTACKS
from certus.certifiers.attack import AttackCertifier as AttackCertifier
from certus.certifiers.auto import AutoCertifier as AutoCertifier
from certus.certifiers.base import Certifier as Certifier
from certus.certifiers.bounds import BoundCertifier as BoundCertifier
from certus.certifiers.lipschitz import LipschitzCertifier as LipschitzCertifier
from certus.certifiers.milp import MilpCertifier as MilpCertifier
from certus.certifiers.smoothed_attack import SmoothedAttackCertifier as SmoothedAttackCertifier
from certus.certifiers.smoothing import SmoothingCertifier as SmoothingCertifier
from certus.certifiers.table import CERTIFIERS as CERTIFIERS
from certus.certifiers.table import about as about
from certus.certifiers.table import certifier as certifier
