"""Double masking, for patches (PatchCleanser: Xiang, Mahloujifar and Mittal 2022)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product
from typing import Any

import torch
from torch import Tensor

from certus.core import Answer, ArgumentError, Certificates, Progress, Reason, Verdict, validate
from certus.core.kinds import KIND, text
from certus.core.progress import silent
from certus.core.random import generator
from certus.core.replay import refuse_training
from certus.smoothing.checks import placed, refuse_unrepeatable
from certus.smoothing.derandomized import Blocks
from certus.smoothing.engine import checked


@dataclass(frozen=True, eq=False)
class DoubleMasking:
    """h(x): the class that survives hiding any one of a set of rectangles, then any other one.

    module is any callable [N, C, H, W] -> logits [N, num_classes] that treats rows independently and
    repeats its answers; an nn.Module must be in evaluation mode. The rectangles, at most `masks` in each
    direction, are placed so that every square of patch x patch pixels lies inside one of them, and a
    hidden pixel is `null` in all channels.

    h: if all once-masked images get one class, that class. Otherwise a minority class whose image, masked
    again in every way, always gets it; else the most frequent class (algorithm 1). If all twice-masked
    copies of x get one class, h gives it for every x' that differs from x in one such square (theorem 1):
    the mask that hides the change shows the clean image, so no other class can survive its second mask.
    The certificates are proofs about h, for any values in the square, and need no label.
    """

    module: Callable[[Tensor], Tensor]
    num_classes: int
    patch: int
    masks: int = field(default=6, kw_only=True)
    null: float = field(default=0.5, kw_only=True)
    batch: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what can never be used: ArgumentError for arguments, ModelError for the module."""
        if not callable(self.module):
            raise ArgumentError(f"module must be callable, got {type(self.module).__name__}")
        validate.count(self.num_classes, "num_classes", 2)
        for name in ("patch", "masks", "batch"):
            validate.count(getattr(self, name), name)
        if not (isinstance(self.null, int | float) and abs(self.null) < float("inf")):
            raise ArgumentError(f"null must be a finite number, got {self.null!r}")
        refuse_training(self.module)

    def predict(self, x: Tensor) -> Tensor:
        """h of each input of x [B, C, H, W]: int64 [B]. Raises ArgumentError and ModelError."""
        x, hidden = self._ready(x)
        return torch.tensor([self._answer(one, hidden) for one in x])

    def certify(self, x: Tensor, progress: Progress = silent) -> Certificates:
        """VERIFIED, with radius `patch`, where all twice-masked copies of an input get one class.

        Otherwise UNKNOWN with radius 0; the prediction is h(x) either way. progress counts inputs. With
        M masks M (M + 1) / 2 copies of each input are evaluated. Raises ArgumentError and ModelError.
        """
        started = time.perf_counter()
        x, hidden = self._ready(x)
        pairs = torch.tensor(list(combinations_with_replacement(range(len(hidden)), 2)))
        twice = hidden[pairs[:, 0]] | hidden[pairs[:, 1]]
        prediction, evidence = [], []
        for done, one in enumerate(x, 1):
            counts = torch.bincount(self._classes(one, twice), minlength=self.num_classes)
            agreed = int(counts.max()) == len(pairs)
            prediction.append(int(counts.argmax()) if agreed else self._answer(one, hidden))
            evidence.append({"masks": len(hidden), "n": len(pairs), "counts": counts.tolist()})
            progress(done, len(x), "masks")
        return Certificates.of(
            [self._judged(*parts) for parts in zip(prediction, evidence, strict=True)],
            method="double-masking",
            threat="patch",
            seconds=time.perf_counter() - started,
            subject=text(
                {
                    KIND: type(self).__name__,
                    "patch": self.patch,
                    "masks": self.masks,
                    "null": self.null,
                }
            ),
        )

    def _answer(self, x: Tensor, hidden: Tensor) -> int:
        """h of one input [C, H, W]."""
        first = self._classes(x, hidden)
        most = int(torch.bincount(first).argmax())
        for one in (first != most).nonzero().flatten():
            if bool((self._classes(x, hidden | hidden[one]) == first[one]).all()):
                return int(first[one])
        return most

    def _classes(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The module's class for copies of x [C, H, W] without the hidden [n, H, W] pixels: [n]."""
        found = []
        with torch.inference_mode():
            for part in hidden.split(self.batch):
                rows = torch.where(part.unsqueeze(1), torch.full_like(x, self.null), x)
                found.append(checked(self.module(rows), len(rows), self.num_classes).argmax(1))
        return torch.cat(found).cpu()

    def _judged(self, prediction: int, record: dict[str, Any]) -> Answer:
        """Proven where all copies agree."""
        proven = max(record["counts"]) == record["n"]
        return Answer(
            verdict=Verdict.VERIFIED if proven else Verdict.UNKNOWN,
            reason=None if proven else Reason.LOOSE,
            radius=float(self.patch) if proven else 0.0,
            prediction=prediction,
            evidence=record,
        )

    def _ready(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs as the module takes them and the masks [M, H, W], after all checks."""
        x = placed(self.module, x.detach() if isinstance(x, Tensor) else x)
        if x.ndim != 4:
            raise ArgumentError(f"masks hide parts of images [B, C, H, W], got {tuple(x.shape)}")
        if self.patch > min(x.shape[2:]):
            raise ArgumentError(f"a patch of {self.patch} does not fit into {tuple(x.shape)}")
        probe = Blocks(1, self.null)  # copies of an image with hidden pixels, as here
        refuse_unrepeatable(self.module, probe, self.num_classes, x, generator(0, 1))
        down, right = (covering(n, self.patch, self.masks).to(x.device) for n in x.shape[2:])
        hidden = [one[:, None] & other for one, other in product(down, right)]
        return x, torch.stack(hidden)


def covering(places: int, patch: int, masks: int) -> Tensor:
    """At most `masks` intervals of 0..places - 1, one of which holds any `patch` places in a row.

    Bool [M, places]. They are as short as such intervals of one length can be (Xiang et al. 2022,
    section 3.3): s = ceil((places - patch + 1) / masks) apart and patch + s - 1 long.
    """
    stride = -(-(places - patch + 1) // masks)
    length = patch + stride - 1
    starts = sorted({min(k * stride, places - length) for k in range(masks)})
    along = torch.arange(places)
    return torch.stack([(along >= start) & (along < start + length) for start in starts])
