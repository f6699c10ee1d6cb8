"""Rules: how many samples a certificate takes, and what their counts prove."""

from certus.smoothing.rules.base import Judgement as Judgement
from certus.smoothing.rules.base import Path as Path
from certus.smoothing.rules.base import Rule as Rule
from certus.smoothing.rules.fixed import Fixed as Fixed
