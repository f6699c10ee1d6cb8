"""Smoothing without chance: finite sets of copies, each with the radius that its counts prove."""

from certus.smoothing.derandomized.base import Derandomized as Derandomized
from certus.smoothing.derandomized.splitting import Splitting as Splitting
from certus.smoothing.derandomized.windows import Blocks as Blocks
from certus.smoothing.derandomized.windows import Columns as Columns
from certus.smoothing.derandomized.windows import Rows as Rows
from certus.smoothing.derandomized.windows import Windows as Windows
