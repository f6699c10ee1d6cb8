"""Rules: how many samples a certificate takes, and what their counts prove."""

from certus.smoothing.rules.at_radius import AtRadius as AtRadius
from certus.smoothing.rules.base import Judgement as Judgement
from certus.smoothing.rules.base import Path as Path
from certus.smoothing.rules.base import Rule as Rule
from certus.smoothing.rules.fixed import Fixed as Fixed
from certus.smoothing.rules.largest import Largest as Largest
from certus.smoothing.rules.precision import Precision as Precision
from certus.smoothing.rules.randomized import FixedRandomized as FixedRandomized
from certus.smoothing.rules.two_sided import TwoSided as TwoSided
