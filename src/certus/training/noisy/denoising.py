"""Denoising: a network that takes noise off, for a classifier that stays as it is."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from certus.core import ArgumentError, ModelError
from certus.graph import Graph
from certus.training.loss import Moment, Value
from certus.training.noisy.copies import Noisy, clean, weight


@dataclass(frozen=True, kw_only=True)
class Denoising(Noisy):
    """Mean |D(x + noise) - x|^2 + weight * CE(f(D(x + noise)), argmax f(x)) for a frozen classifier f.

    Salman et al. 2020, eq. 4 and 5 (MSE and stability objective); the labels are not used. Trains
    the denoiser D [B, *shape] -> [B, *shape] alone: f is evaluated and never changed. The squared
    error is a mean over values, too. Certify `Denoised(D, f)` afterwards.
    """

    classifies: ClassVar[bool] = False
    ascends: ClassVar[bool] = False
    classifier: nn.Module | None = field(default=None, repr=False)
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        weight(self.weight, "weight")
        if self.classifier is not None and not isinstance(self.classifier, nn.Module):
            raise ArgumentError(f"classifier must be a module or None, got {self.classifier!r:.80}")
        if self.classifier is not None and any(p.training for p in self.classifier.modules()):
            raise ModelError("the classifier is in training mode; call classifier.eval() first")

    def __call__(self, graph: Graph, logits: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Value:
        """Mean over all copies; logits are the denoised copies."""
        wanted = clean(moment)
        shown = self.split(logits)
        if shown.shape[1:] != wanted.shape:
            raise ModelError(
                f"a denoiser must keep the shape {tuple(wanted.shape[1:])} of an input, "
                f"it returns {tuple(shown.shape[2:])}"
            )
        total = mse_loss(logits, wanted.repeat(self.copies, *[1] * (wanted.ndim - 1)))
        if self.classifier is None or self.weight == 0:
            return Value(total)
        target = self.classifier(wanted).detach().argmax(1).repeat(self.copies)
        return Value(total + self.weight * cross_entropy(self.classifier(logits), target))
