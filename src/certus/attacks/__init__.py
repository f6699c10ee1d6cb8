"""Attacks: search for an input of the region that the model gets wrong."""

from certus.attacks.base import Attack as Attack
from certus.attacks.base import Classifier as Classifier
from certus.attacks.base import fit as fit
from certus.attacks.fgsm import FGSM as FGSM
from certus.attacks.pgd import PGD as PGD
from certus.core.replay import margin as margin
