"""Checkpoints and data sets as the commands need them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from certus.certifiers import CERTIFIERS, Certifier, certifier
from certus.core import ArgumentError, FileError, validate
from certus.evaluation import Cluster, InProcess, Local, Pool
from certus.graph import Graph, trace
from certus.smoothing import Derandomized, Gaussian, Noise
from certus.smoothing.names import noise_named, rule_named
from certus.zoo import Card, Dataset, load_checkpoint, load_data


@dataclass(frozen=True, eq=False)
class Loaded:
    """A checkpoint, captured."""

    name: str
    module: nn.Module
    graph: Graph
    card: Card

    @property
    def sigma(self) -> float:
        """The noise it was trained for; 0.25 where it was not trained with noise."""
        sigma = self.card.recipe.get("sigma", 0.25)
        if isinstance(sigma, bool) or not isinstance(sigma, int | float):
            raise FileError(
                f"the card of {self.name} has no usable sigma ({sigma!r}); give --sigma"
            )
        return float(sigma)


def load_model(path: Path, data: Dataset) -> Loaded:
    """The checkpoint of a directory, checked against the data set that it is to be used on."""
    module, card = load_checkpoint(path)
    if tuple(card.shape) != tuple(data.shape) or card.classes != data.classes:
        raise ArgumentError(
            f"{path} was made for inputs {list(card.shape)} and {card.classes} classes, "
            f"{data.name} has {list(data.shape)} and {data.classes}; choose --data to match"
        )
    return Loaded(path.resolve().name, module, trace(module, data.x_test[:1]), card)


def data_for(paths: tuple[Path, ...], name: str | None, directory: Path | None) -> Dataset:
    """The data set that was asked for, by default the one that the first checkpoint was trained on."""
    return load_data(name or load_checkpoint(paths[0])[1].data, directory)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The data to train on.

    Args:
        data: data set; `certus data` lists them.
        data_dir: where idx files lie (default: $CERTUS_DATA).
    """

    data: str = "digits"
    data_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which inputs, and where the answers go.

    Args:
        data: data set (default: the one the first model was trained on); `certus data` lists them.
        data_dir: where idx files lie (default: $CERTUS_DATA).
        limit: at most so many test inputs.
        every: take only every so-manieth test input: 20 stands for inputs 0, 20, 40 and so on.
        ledger: where rows are kept as they come (default: ledger.sqlite beside the model or report).
        seed: seed of noise and of random starts.
        workers: processes that share the work on this machine; the rows are the same with any number.
        cluster: address of a Dask scheduler whose workers do the work, such as tcp://host:8786.
    """

    data: str | None = None
    data_dir: Path | None = None
    limit: int | None = None
    every: int = 1
    ledger: Path | None = None
    seed: int = 0
    workers: int = 1
    cluster: str | None = None

    def pool(self) -> Pool:
        """Where rows are computed: in this process, in workers, or on a cluster."""
        if validate.count(self.workers, "workers") > 1 and self.cluster is not None:
            raise ArgumentError(
                "give --workers or --cluster, not both: a cluster has its own workers"
            )
        if self.cluster is not None:
            return Cluster(self.cluster)
        return InProcess() if self.workers == 1 else Local(self.workers)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options that only some methods take.

    Args:
        sigma: Gaussian noise of smoothing, in input units (default: what the model was trained for).
        noise: another noise than Gaussian, as name:number; `certus methods` lists them.
        rule: how smoothing samples, as name or name:number; `certus methods` lists them.
        n: most noise samples per input that bound the class probability.
        n0: noise samples per input that choose the class.
        alpha: chance that a statistical certificate is wrong, per input.
        shared: smoothing draws the same noise for all inputs of a block, which is faster.
        quantised: the adversary is bound to 8-bit values, as some noises' proofs need.
        timeout: seconds per input for milp, in all for each block of auto.
    """

    sigma: float | None = None
    noise: str | None = None
    rule: str = "fixed"
    shared: bool = False
    quantised: bool = False
    n: int = 10_000
    n0: int = 100
    alpha: float = 1e-3
    timeout: float = 60.0

    def build(self, method: str, model: Loaded, seed: int) -> Certifier:
        """The certifier of this name with the options that it takes."""
        if method == "smoothing":
            return certifier(
                method,
                noise=self._noise(model),
                rule=rule_named(self.rule, self.n0, self.n),
                n=self.n,
                n0=self.n0,
                alpha=self.alpha,
                seed=seed,
                shared=self.shared,
                quantised=self.quantised,
            )
        if method in ("milp", "auto"):
            return certifier(method, timeout=self.timeout)
        return certifier(method)

    def _noise(self, model: Loaded) -> Noise | Derandomized:
        if self.noise is None:
            return Gaussian(self.sigma if self.sigma is not None else model.sigma)
        if self.sigma is not None:
            raise ArgumentError(
                "give --sigma or --noise, not both: sigma is that of Gaussian noise"
            )
        return noise_named(self.noise, tuple(model.card.shape))


def known_methods(text: str) -> list[str]:
    """Method names from a comma-separated list."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    strange = [name for name in names if name not in CERTIFIERS]
    if strange or not names:
        raise ArgumentError(
            f"unknown method {', '.join(strange) or text!r}; choose from: {', '.join(CERTIFIERS)}"
        )
    return names


def card_dict(card: Card) -> dict[str, Any]:
    """The card as plain values, for the ledger."""
    return asdict(card)
