"""What different proofs make of the same probabilities, for teaching and as tests of each other."""

from certus.smoothing.bounds.comparison import GAUSSIAN as GAUSSIAN
from certus.smoothing.bounds.comparison import LAPLACE as LAPLACE
from certus.smoothing.bounds.comparison import Bound as Bound
