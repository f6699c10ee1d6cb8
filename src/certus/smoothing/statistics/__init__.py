"""Exact confidence statements about probabilities, from counts."""

from certus.smoothing.statistics.agreement import settled as settled
from certus.smoothing.statistics.betting import betting_lower_bound as betting_lower_bound
from certus.smoothing.statistics.betting import betting_upper_bound as betting_upper_bound
from certus.smoothing.statistics.binomial import accuracy_interval as accuracy_interval
from certus.smoothing.statistics.binomial import agreement_p_value as agreement_p_value
from certus.smoothing.statistics.binomial import lower_bound as lower_bound
from certus.smoothing.statistics.binomial import upper_bound as upper_bound
from certus.smoothing.statistics.counts import level as level
from certus.smoothing.statistics.joint import count_lower_bound as count_lower_bound
from certus.smoothing.statistics.joint import holm as holm
from certus.smoothing.statistics.joint import p_value as p_value
from certus.smoothing.statistics.joint import rate_lower_bound as rate_lower_bound
from certus.smoothing.statistics.randomized import randomized_lower_bound as randomized_lower_bound
from certus.smoothing.statistics.sequence import anytime_interval as anytime_interval
from certus.smoothing.statistics.sequence import anytime_lower_bound as anytime_lower_bound
from certus.smoothing.statistics.sequence import anytime_p_value as anytime_p_value
from certus.smoothing.statistics.sequence import anytime_upper_bound as anytime_upper_bound
from certus.smoothing.statistics.sequence import log_evidence as log_evidence
from certus.smoothing.statistics.sequence import log_mixture as log_mixture
from certus.smoothing.statistics.sequence import union_lower_bound as union_lower_bound
from certus.smoothing.statistics.simultaneous import against_all as against_all
from certus.smoothing.statistics.simultaneous import bonferroni as bonferroni
from certus.smoothing.statistics.simultaneous import goodman as goodman
