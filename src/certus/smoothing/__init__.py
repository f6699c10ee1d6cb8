"""Randomized smoothing: noise, exact binomial statistics, rules, the smoothed classifier."""

from certus.smoothing.derandomized import Derandomized as Derandomized
from certus.smoothing.double_masking import DoubleMasking as DoubleMasking
from certus.smoothing.double_sampling import DoubleSampling as DoubleSampling
from certus.smoothing.input_dependent import InputDependent as InputDependent
from certus.smoothing.noise import Gaussian as Gaussian
from certus.smoothing.noise import Noise as Noise
from certus.smoothing.rules import Fixed as Fixed
from certus.smoothing.rules import Rule as Rule
from certus.smoothing.semi_elastic import NearestPoints as NearestPoints
from certus.smoothing.semi_elastic import SemiElastic as SemiElastic
from certus.smoothing.smoothed import Smoothed as Smoothed
from certus.smoothing.statistics import accuracy_interval as accuracy_interval
from certus.smoothing.statistics import agreement_p_value as agreement_p_value
from certus.smoothing.statistics import lower_bound as lower_bound
from certus.smoothing.statistics import upper_bound as upper_bound
