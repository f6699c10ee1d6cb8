"""Linear relaxations of non-linear operations, one rule for each class of operation."""

from certus.relax.activation import relu as relu
from certus.relax.interval import intervals as intervals
from certus.relax.lines import Interval as Interval
from certus.relax.lines import Lines as Lines
from certus.relax.lines import Relaxation as Relaxation
from certus.relax.lines import relaxations as relaxations
from certus.relax.pooling import max_pool as max_pool
