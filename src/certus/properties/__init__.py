"""Properties of networks: VNN-LIB files as boxes of inputs and linear conditions on outputs."""

from certus.properties.augmented import augmented as augmented
from certus.properties.case import Case as Case
from certus.properties.conditions import Conditions as Conditions
from certus.properties.conditions import Specification as Specification
from certus.properties.load import load_property as load_property
from certus.properties.problem import Problem as Problem
