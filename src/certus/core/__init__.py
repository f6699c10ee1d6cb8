"""Errors, results, verdicts, numerics and random generators: what every layer may use."""

from certus.core.errors import ArgumentError as ArgumentError
from certus.core.errors import CertusError as CertusError
from certus.core.errors import ContradictionError as ContradictionError
from certus.core.errors import DependencyError as DependencyError
from certus.core.errors import FileError as FileError
from certus.core.errors import ModelError as ModelError
from certus.core.errors import UnsupportedError as UnsupportedError
from certus.core.fingerprint import fingerprint as fingerprint
from certus.core.model import Function as Function
from certus.core.model import Model as Model
from certus.core.model import as_model as as_model
from certus.core.progress import Progress as Progress
from certus.core.results import Answer as Answer
from certus.core.results import AttackResult as AttackResult
from certus.core.results import Bounds as Bounds
from certus.core.results import Certificates as Certificates
from certus.core.rules import Rules as Rules
from certus.core.verdict import Reason as Reason
from certus.core.verdict import Verdict as Verdict
