"""Linear relaxations of non-linear operations, one rule for each class of operation."""

from certus.relax.activation import relu as relu
from certus.relax.bilinear import mul as mul
from certus.relax.curved import curved as curved
from certus.relax.extremum import norm as norm
from certus.relax.interval import intervals as intervals
from certus.relax.lines import Interval as Interval
from certus.relax.lines import Lines as Lines
from certus.relax.lines import Relaxation as Relaxation
from certus.relax.lines import relaxations as relaxations
from certus.relax.masked import masked_softmax as masked_softmax
from certus.relax.order import ranked as ranked
from certus.relax.periodic import wave as wave
from certus.relax.piecewise import prelu as prelu
from certus.relax.pooling import max_pool as max_pool
from certus.relax.softmax import log_sum_exp as log_sum_exp
from certus.relax.whole import fits as fits
from certus.relax.within import within as within
