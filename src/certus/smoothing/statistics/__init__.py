"""Exact confidence statements about probabilities, from counts."""

from certus.smoothing.statistics.binomial import accuracy_interval as accuracy_interval
from certus.smoothing.statistics.binomial import agreement_p_value as agreement_p_value
from certus.smoothing.statistics.binomial import lower_bound as lower_bound
from certus.smoothing.statistics.binomial import upper_bound as upper_bound
