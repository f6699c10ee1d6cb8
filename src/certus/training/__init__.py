"""Training: one loop, losses for certified and empirical robustness, schedules and recipes."""

from certus.training.initialise import interval_weights as interval_weights
from certus.training.loop import Epoch as Epoch
from certus.training.loop import History as History
from certus.training.loop import Plan as Plan
from certus.training.loop import train as train
from certus.training.loss import Adversarial as Adversarial
from certus.training.loss import CrownIBPLoss as CrownIBPLoss
from certus.training.loss import GaussianAugmentation as GaussianAugmentation
from certus.training.loss import IBPLoss as IBPLoss
from certus.training.loss import LipschitzLoss as LipschitzLoss
from certus.training.loss import Loss as Loss
from certus.training.loss import Moment as Moment
from certus.training.loss import Standard as Standard
from certus.training.loss import Value as Value
from certus.training.recipe import RECIPES as RECIPES
from certus.training.recipe import Recipe as Recipe
from certus.training.recipe import find_recipe as find_recipe
from certus.training.recipe import train_recipe as train_recipe
from certus.training.schedule import Constant as Constant
from certus.training.schedule import Cosine as Cosine
from certus.training.schedule import Ramp as Ramp
from certus.training.schedule import Schedule as Schedule
from certus.training.schedule import StepDecay as StepDecay
from certus.training.snapshot import Snapshot as Snapshot
