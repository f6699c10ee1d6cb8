"""Train a net by a recipe and keep it as a checkpoint; an interrupted training goes on."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from certus.cli.progress import bar, say
from certus.core import ArgumentError
from certus.core.files import locked
from certus.smoothing import Derandomized, Noise
from certus.smoothing.names import noise_named
from certus.training import Recipe, Snapshot, find_recipe, train
from certus.training.noisy import Noisy
from certus.zoo import Card, Dataset, build_net, save_checkpoint


def _plain(numbers: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: None stands for a figure that does not apply."""
    return {k: None if v != v else v for k, v in numbers.items()}  # noqa: PLR0124


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What to train for.

    Args:
        eps: radius to train for, in the recipe's norm and in input units.
        sigma: noise level to train for (gaussian, consistency and the other recipes with noise).
        noise: another noise than Gaussian for these recipes, as name:number, such as columns:3;
            `certus methods` lists them.
    """

    eps: float | None = None
    sigma: float | None = None
    noise: str | None = None

    def strength(self, recipe: Recipe) -> float | None:
        """The number that the recipe takes, None for its own; ArgumentError for what it does not take."""
        known = {"sigma": ("sigma", "noise")}.get(recipe.takes, (recipe.takes,))
        for name, value in asdict(self).items():
            if value is not None and name not in known:
                rule = f"{recipe.takes}, not {name}" if recipe.takes else f"no {name}"
                raise ArgumentError(f"the recipe {recipe.name} takes {rule}")
        if self.sigma is not None and self.noise is not None:
            raise ArgumentError(
                "give --sigma or --noise, not both: sigma is that of Gaussian noise"
            )
        found: float | None = asdict(self).get(recipe.takes)
        return found


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What to train: net, recipe, strength (eps or sigma; None: the recipe's own), epochs, seed.

    noise: a name of `certus.smoothing.names`, in place of the Gaussian noise of the recipe.
    """

    net: str
    recipe: str
    strength: float | None = None
    noise: str | None = None
    epochs: int | None = None
    seed: int = 0


def fit(what: Fit, data: Dataset, out: Path) -> Card:
    """Train and save into the directory `out`; resumes from the snapshot of an interrupted run.

    Raises ArgumentError where `out` holds a checkpoint or another training is at work in it, and for a
    noise that the recipe cannot take.
    Folders that were made for a training that then did not begin are taken away again.
    """
    recipe = find_recipe(what.recipe)
    noise = None if what.noise is None else noise_named(what.noise, data.shape)
    with _folder(out), locked(out) as alone:
        if not alone:
            raise ArgumentError(f"another training is at work in {out}; choose another --out")
        if os.path.lexists(out / "card.json"):
            raise ArgumentError(f"{out} already holds a checkpoint; choose another --out")
        return _fitted(what, data, out, recipe, noise)


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The directory, so that it shows now and not after an epoch that it cannot be; left only if used."""
    new = [path for path in (out, *out.parents) if not path.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # one that holds something stays, and so do those above it
            for path in new:
                path.rmdir()


def _fitted(
    what: Fit, data: Dataset, out: Path, recipe: Recipe, noise: Noise | Derandomized | None
) -> Card:
    module = build_net(what.net, data.shape, data.classes, seed=what.seed).eval()
    loss, plan = recipe.start(
        module, len(data.x_train), what.strength, what.epochs, what.seed, initialise=True
    )
    if noise is not None:
        if not isinstance(loss, Noisy):
            raise ArgumentError(f"the recipe {recipe.name} takes no noise")
        loss = replace(loss, noise=noise)
    snapshot = Snapshot(out / "training.safetensors")
    if snapshot.path.exists():
        say(f"going on with the training in {out}")
    with bar(f"train {what.recipe} ({what.net})") as progress:
        history = train(module, data.x_train, data.y_train, loss, plan, progress, snapshot)
    accuracy = math.nan
    if loss.classifies:
        with torch.no_grad():
            accuracy = float((module(data.x_test).argmax(1) == data.y_test).double().mean())
    value = recipe.strength if what.strength is None else what.strength
    strength: dict[str, float | str] = {recipe.takes: value} if recipe.takes else {}
    if what.noise is not None:
        strength = {"noise": what.noise}
    settings = {
        "name": recipe.name,
        "epochs": plan.epochs,
        "batch": plan.batch,
        **strength,
        "norm": recipe.norm,
        "loss": repr(loss),
    }
    card = Card(
        net=what.net,
        shape=data.shape,
        classes=data.classes,
        data=data.name,
        recipe=settings,
        seed=what.seed,
        metrics={
            **_plain({"clean_accuracy": accuracy}),
            "last_epoch": _plain(asdict(history.epochs[-1])),
        },
        train_seconds=history.seconds,
    )
    saved = save_checkpoint(out, module, card)
    snapshot.path.unlink(missing_ok=True)
    clean = f"clean accuracy {accuracy:.1%}, " if loss.classifies else ""
    say(f"{out}: {recipe.name} {what.net}, {clean}{history.seconds:.0f} s")
    return saved
