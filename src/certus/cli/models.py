"""Checkpoints and data sets as the commands need them."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from certus.certifiers import CERTIFIERS, Certifier, SmoothingCertifier, certifier
from certus.cli.progress import say
from certus.core import ArgumentError, FileError, UnsupportedError, validate
from certus.core.errors import one_line
from certus.evaluation import Cluster, InProcess, Local, Pool
from certus.graph import Graph, trace
from certus.smoothing import Derandomized, Gaussian, Noise
from certus.smoothing.names import noise_named, rule_named
from certus.smoothing.noise import converted, convertible
from certus.threats import NormBall, parse
from certus.threats.norms import Clip
from certus.zoo import Card, Dataset, load_checkpoint, load_data

DEFAULT = Gaussian(0.25)
"""The noise that smoothing takes where none was asked for or trained with."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A checkpoint, captured."""

    name: str
    module: nn.Module
    graph: Graph
    card: Card

    @property
    def noise(self) -> Noise | Derandomized | None:
        """The noise it was trained for; None where it was trained without."""
        found = {k: self.card.recipe[k] for k in ("noise", "sigma") if k in self.card.recipe}
        try:
            if "noise" in found:
                return noise_named(str(found["noise"]), tuple(self.card.shape))
            return Gaussian(found["sigma"]) if found else None
        except ArgumentError as error:
            raise FileError(
                f"the card of {self.name} has no usable noise or sigma ({error}); "
                "give --sigma or --noise"
            ) from error


def load_model(path: Path, data: Dataset) -> Loaded:
    """The checkpoint of a directory, checked against the data set that it is to be used on."""
    module, card = load_checkpoint(path)
    if tuple(card.shape) != tuple(data.shape) or card.classes != data.classes:
        raise ArgumentError(
            f"{path} was made for inputs {list(card.shape)} and {card.classes} classes, "
            f"{data.name} has {list(data.shape)} and {data.classes}; choose --data to match"
        )
    graph = trace(module, data.x_test[:1])
    if len(card.shape) > 1 and tuple(graph.output_shape) == tuple(card.shape):
        raise ArgumentError(
            f"{path} is a denoiser: it returns images, no logits. In Python, "
            "certus.training.Denoised(denoiser, classifier) is what can be certified "
            "(docs/smoothing-training.md, denoisers)"
        )
    return Loaded(one_line(path.resolve().name, 100), module, graph, card)


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
        noise: another noise than Gaussian, as name:number; `certus methods` lists them. Of ablation,
            columns, rows and blocks, what is hidden is 0, or v in columns:2/v.
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
            built = certifier(
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
            if self.sigma is None and self.noise is None and model.noise is None:
                say(
                    f"{model.name} was trained without noise: smoothing takes {DEFAULT!r}; "
                    "choose by --sigma or --noise"
                )
            return built
        if method in ("milp", "auto"):
            return certifier(method, timeout=self.timeout)
        return certifier(method)

    def _noise(self, model: Loaded) -> Noise | Derandomized:
        if self.noise is not None and self.sigma is not None:
            raise ArgumentError(
                "give --sigma or --noise, not both: sigma is that of Gaussian noise"
            )
        if self.noise is not None:
            return noise_named(self.noise, tuple(model.card.shape))
        if self.sigma is not None:
            return Gaussian(self.sigma)
        return model.noise or DEFAULT


def asked_threat(text: str | None, method: Any, model: Loaded, clip: Clip) -> NormBall:
    """The threat that a method is asked about; size 0 in its own norm where it finds radii and none is given.

    Says so in one line where the threat exceeds all that smoothing could prove. Raises ArgumentError for
    text that is no threat, UnsupportedError where radii say nothing about its norm.
    """
    norm = method.norm if isinstance(method, Certifier) else None
    if text is None:
        return parse(f"{norm}:0" if norm else "linf:0.1", clip)
    ball = parse(text, clip)
    if norm is None:
        return ball
    if not convertible(norm, ball.norm):
        raise UnsupportedError(
            f"{method.name} finds {norm} radii here, which say nothing about {text}; "
            "`certus methods` lists noises and norms"
        )
    if isinstance(method, SmoothingCertifier):
        shape = tuple(model.card.shape)
        own = method.most(shape, model.card.classes)
        most = float(converted(own, norm, ball.norm, math.prod(shape)))
        if float(ball.eps) > most:
            given = "this noise" if method.confidence == 1 else "this noise, n and alpha"
            wider = "" if ball.norm == norm else f" ({norm}:{own:.3g})"
            say(
                f"{text} is out of reach, unless the valid range of inputs cuts it: with {given} no radius "
                f"exceeds {ball.norm}:{most:.3g}{wider}"
            )
    return ball


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
