"""Recipes: a loss and the settings that go with it, good without tuning on small data."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from certus.core import ArgumentError, Progress
from certus.core.progress import silent
from certus.core.validate import count, inputs, positive
from certus.smoothing.noise import Gaussian
from certus.training.initialise import interval_weights
from certus.training.loop import History, train
from certus.training.loss import (
    Adversarial,
    CrownIBPLoss,
    IBPLoss,
    LipschitzLoss,
    Loss,
    Standard,
)
from certus.training.noisy import (
    CatRS,
    Consistency,
    Denoising,
    Macer,
    NoiseAugmentation,
    SmoothAdv,
    SmoothMix,
    Stability,
)
from certus.training.plan import Plan
from certus.training.schedule import Constant, Cosine, Ramp, Schedule

_SMALL_DATA = 10_000  # inputs; below it an epoch has few steps and batches are smaller


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A loss with settings. strength is what `make` takes, and `takes` names it: eps in `norm` units,
    or sigma, the deviation of the noise; "" where the loss takes nothing.

    batch: inputs in one step where data are not few; losses on m copies take fewer. visits: how many
    inputs the whole training looks at when epochs are not given; epochs are visits / N within
    `epochs` (least, most). kappa: what the weight of the clean loss falls to during the ramp (start,
    end) in fractions of the training, while eps rises to strength. interval_start: fresh modules
    start best from `interval_weights`.
    """

    name: str
    about: str
    norm: str
    strength: float
    make: Callable[[float], Loss]
    visits: int
    takes: str = "eps"
    batch: int = 256
    epochs: tuple[int, int] = (1, 1000)
    rate: float = 1e-3
    hold: float = 0.0
    kappa: float = 1.0
    beta: float = 0.0
    ramp: tuple[float, float] = (0.05, 0.6)
    interval_start: bool = False

    def start(
        self,
        module: nn.Module,
        size: int,
        strength: float | None = None,
        epochs: int | None = None,
        seed: int = 0,
        initialise: bool = False,
    ) -> tuple[Loss, Plan]:
        """What to call `train` with.

        size: number of training inputs. initialise: draw the weights of the module anew, from the
        seed, where the recipe has initial weights of its own (`interval_start`); for a fresh module.
        Raises ArgumentError for a strength that is not > 0; the module is then unchanged.
        """
        value = self.strength if strength is None else positive(strength, "strength")
        if epochs is None:
            least, most = self.epochs
            epochs = min(most, max(least, round(self.visits / count(size, "size"))))
        begin, end = self.ramp
        beta: Schedule = Constant(0.0)
        if self.beta > 0:
            beta = Ramp(low=self.beta, high=0.0, begin=begin, end=end)
        plan = Plan(
            epochs=epochs,
            batch=min(64, self.batch // 2) if size < _SMALL_DATA else self.batch,
            rate=Cosine(rate=self.rate, last=self.rate / 100, begin=self.hold),
            eps=Ramp(low=0.0, high=value if self.norm else 0.0, begin=begin, end=end, smooth=True),
            kappa=Ramp(low=1.0, high=self.kappa, begin=begin, end=end),
            beta=beta,
            seed=seed,
        )
        loss = self.make(value)
        if initialise and self.interval_start:
            interval_weights(module, seed)
        return loss, plan


def train_recipe(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: str | Recipe,
    strength: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> History:
    """Train a module in place on x [N, *shape] in [0, 1] and labels y [N] by a recipe.

    The weights are taken as they are. Recipes with bounds (`interval_start`) do better from weights
    that keep the bounds narrow: for a fresh module, call `interval_weights(module, seed)` first.
    strength: the eps that the recipe trains for, or the sigma of its noise; None takes the recipe's
    own, and epochs None what suits N. For snapshots, or inputs in another range, call `start` of the
    recipe and hand what it returns to `train`. Raises ArgumentError for an unknown recipe.
    """
    loss, plan = find_recipe(recipe).start(module, len(inputs(x)), strength, epochs, seed)
    return train(module, x, y, loss, plan, progress)


def find_recipe(recipe: str | Recipe) -> Recipe:
    """The recipe of this name. Raises ArgumentError that lists the names."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ArgumentError(f"no recipe {recipe!r}; choose one of: {', '.join(RECIPES)}")
    return RECIPES[recipe]


def _by(sigma: float, small: int, middle: int, large: int) -> int:
    """A setting that papers give for sigma 0.25, 0.5 and 1: that of the nearest one."""
    return small if sigma < 0.36 else middle if sigma < 0.71 else large


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="standard",
            about="cross entropy on clean inputs",
            norm="",
            strength=1.0,
            make=lambda strength: Standard(),
            takes="",
            visits=120_000,
            epochs=(5, 90),
        ),
        Recipe(
            name="adversarial",
            about="cross entropy at the points of a 7-step gradient attack in Linf",
            norm="linf",
            strength=0.1,
            make=lambda strength: Adversarial(),
            visits=120_000,
            epochs=(8, 90),
            ramp=(0.05, 0.3),
        ),
        Recipe(
            name="gaussian",
            about="cross entropy under Gaussian noise, for randomized smoothing",
            norm="",
            strength=0.25,
            make=lambda sigma: NoiseAugmentation(noise=Gaussian(sigma)),
            takes="sigma",
            visits=150_000,
            epochs=(10, 110),
        ),
        Recipe(
            name="stability",
            about="answers under Gaussian noise follow the clean ones",
            norm="",
            strength=0.25,
            make=lambda sigma: Stability(noise=Gaussian(sigma)),
            takes="sigma",
            batch=128,
            visits=150_000,
            epochs=(10, 110),
        ),
        Recipe(
            name="consistency",
            about="answers under Gaussian noise agree with their mean",
            norm="",
            strength=0.25,
            make=lambda sigma: Consistency(noise=Gaussian(sigma), weight=_by(sigma, 10, 5, 5)),
            takes="sigma",
            batch=128,
            visits=150_000,
            epochs=(16, 110),
        ),
        Recipe(
            name="smoothadv",
            about="gradient attacks on the classifier smoothed by Gaussian noise",
            norm="",
            strength=0.25,
            make=lambda sigma: SmoothAdv(noise=Gaussian(sigma)),
            takes="sigma",
            batch=64,
            visits=100_000,
            epochs=(6, 75),
        ),
        Recipe(
            name="smoothmix",
            about="mixtures towards attacks on the smoothed classifier",
            norm="",
            strength=0.25,
            make=lambda sigma: SmoothMix(noise=Gaussian(sigma), steps=_by(sigma, 2, 4, 8)),
            takes="sigma",
            batch=64,
            visits=100_000,
            epochs=(8, 75),
        ),
        Recipe(
            name="cat-rs",
            about="as much is asked under noise as the smoothed classifier is sure of",
            norm="",
            strength=0.25,
            make=lambda sigma: CatRS(noise=Gaussian(sigma)),
            takes="sigma",
            batch=64,
            visits=100_000,
            epochs=(8, 75),
        ),
        Recipe(
            name="macer",
            about="the certified radius under Gaussian noise is maximised",
            norm="",
            strength=0.25,
            make=lambda sigma: Macer(noise=Gaussian(sigma), weight=_by(sigma, 16, 16, 6)),
            takes="sigma",
            batch=64,
            visits=100_000,
            epochs=(8, 75),
        ),
        Recipe(
            name="denoiser",
            about="a denoiser (net dncnn) of Gaussian noise, to put before a classifier",
            norm="",
            strength=0.25,
            make=lambda sigma: Denoising(noise=Gaussian(sigma)),
            takes="sigma",
            visits=100_000,
            epochs=(5, 75),
        ),
        Recipe(
            name="ibp",
            about="interval bounds in Linf, for certificates by ibp and crown",
            norm="linf",
            strength=0.1,
            make=lambda strength: IBPLoss(),
            visits=200_000,
            epochs=(24, 150),
            rate=2e-3,
            hold=0.5,
            kappa=0.5,
            interval_start=True,
        ),
        Recipe(
            name="crown-ibp",
            about="interval bounds, led by CROWN while eps is small, in Linf",
            norm="linf",
            strength=0.1,
            make=lambda strength: CrownIBPLoss(),
            visits=130_000,
            epochs=(15, 100),
            rate=2e-3,
            hold=0.5,
            kappa=0.5,
            beta=1.0,
            interval_start=True,
        ),
        Recipe(
            name="lipschitz",
            about="margins against a Lipschitz estimate, for certified L2 radii",
            norm="l2",
            strength=0.5,
            make=lambda strength: LipschitzLoss(),
            visits=100_000,
            epochs=(12, 75),
            rate=2e-3,
            kappa=0.0,
            ramp=(0.05, 0.4),
        ),
    )
}
