"""Evaluation: resumable runs, their ledger, figures, and the check of proofs against attacks."""

from certus.evaluation.attack_runner import AttackRunner as AttackRunner
from certus.evaluation.comparison import summary as summary
from certus.evaluation.job import Job as Job
from certus.evaluation.ledger import COLUMNS as COLUMNS
from certus.evaluation.ledger import Ledger as Ledger
from certus.evaluation.metrics import Curve as Curve
from certus.evaluation.metrics import Figure as Figure
from certus.evaluation.metrics import attack_curve as attack_curve
from certus.evaluation.metrics import average_certified_radius as average_certified_radius
from certus.evaluation.metrics import clean_accuracy as clean_accuracy
from certus.evaluation.metrics import curve as curve
from certus.evaluation.run import evaluate as evaluate
from certus.evaluation.sandwich import Sandwich as Sandwich
from certus.evaluation.sandwich import check as check
from certus.evaluation.table import export as export
from certus.evaluation.table import read as read
