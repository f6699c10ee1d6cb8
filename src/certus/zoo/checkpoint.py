"""Checkpoints: a folder with the weights (safetensors) and a card that says what they are."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from certus.core.errors import ArgumentError, FileError, ModelError
from certus.core.files import content, replace_file
from certus.core.validate import count
from certus.zoo.nets import build_net

CARD = "card.json"
WEIGHTS = "model.safetensors"
MODELS = Path(__file__).parent / "models"  # checkpoints that come with the library
_MOST_CARD = 1 << 20  # bytes
_HEADER = 1 << 20  # bytes that a weights file may have beyond its tensors
_LARGEST = 10**300  # of a number in a card
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a checkpoint is: enough to rebuild the network, and where it comes from.

    net, shape, classes, mean, std: arguments of `build_net`. data: name of the training set.
    recipe: how it was trained (plain JSON values). seed: of weights and training. metrics: numbers
    measured after training. weights_sha256 is always set by `save_checkpoint`; versions and created
    (ISO time, UTC) where empty.
    """

    net: str
    shape: tuple[int, ...]
    classes: int
    data: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    train_seconds: float = 0.0
    weights_sha256: str = ""
    created: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values of another type; turn lists, as JSON has them, into tuples."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ArgumentError(f"{name} of a card has the wrong type {type(value).__name__}")
        for name in ("shape", "mean", "std"):
            values = tuple(getattr(self, name))
            if not all(map(_is_number, values)):
                raise ArgumentError(f"{name} of a card must be numbers, got {values}")
            object.__setattr__(self, name, values)
        count(self.classes, "classes", least=2)
        count(self.seed, "seed", least=0)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "net": str,
    "data": str,
    "weights_sha256": str,
    "created": str,
    "recipe": dict,
    "versions": dict,
    "metrics": dict,
    "train_seconds": (int, float),
    "shape": (list, tuple),
    "mean": (list, tuple),
    "std": (list, tuple),
}


def save_checkpoint(path: Path | str, module: nn.Module, card: Card) -> Card:
    """Write the weights, then the card, to the folder `path`; returns the card as it was written.

    Each file is replaced as a whole, the card last: after an interruption the hash in an old card
    does not match new weights, and loading refuses.
    Raises ArgumentError where `module` is not the network that the card names (it could not be
    loaded again) or the card is not plain JSON, ModelError for weights that are not finite,
    FileError where the folder cannot be written.
    """
    folder, twin = Path(path), _build(card)
    if repr(module) != repr(twin):
        raise ArgumentError(
            f"the module is not build_net({card.net!r}, {card.shape}, {card.classes}); "
            "save the network itself, with the card it was built from"
        )
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    _check(tensors, twin.state_dict(), "the module")
    weights = safetensors.torch.save(tensors)
    card = replace(
        card,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        versions=card.versions or _versions(),
        created=card.created or datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        text = json.dumps(asdict(card), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"a card must hold plain JSON values ({error})") from error
    replace_file(folder / WEIGHTS, weights)
    replace_file(folder / CARD, text.encode())
    return Card(**json.loads(text))


def load_checkpoint(path: Path | str) -> tuple[nn.Module, Card]:
    """The network in evaluation mode, on the CPU, and its card, from a folder that was saved here.

    path is the folder, or a name of `shipped` where no folder of that name holds a card.
    Nothing is unpickled. The weights are used only if their SHA-256 is the one in the card, their
    names and shapes are those of the network, and all are finite.
    Raises FileError for a missing or damaged file, ModelError for weights that are not finite.
    """
    folder = Path(path)
    if str(path) in shipped() and not (folder / CARD).exists():
        folder = MODELS / folder
    if not folder.is_dir():
        raise FileError(
            f"{folder} is not a checkpoint folder (it should hold {CARD} and {WEIGHTS}), "
            f"and none of that name comes with Certus ({', '.join(shipped())})"
        )
    card = _read_card(folder / CARD)
    try:
        module = _build(card)
    except ArgumentError as error:
        raise FileError(f"{folder / CARD} does not describe a network: {error}") from error
    expected = module.state_dict()
    tensors = _read_weights(folder / WEIGHTS, card, _HEADER + 2 * _size(expected))
    _check(tensors, expected, str(folder / WEIGHTS))
    module.to(_dtype(tensors, expected, str(folder / WEIGHTS))).load_state_dict(tensors)
    if repr(module) != repr(_build(card)):
        raise FileError(f"{folder / WEIGHTS} has another mean or std than {CARD}; save it again")
    return module.eval(), card


def shipped() -> tuple[str, ...]:
    """Names of the checkpoints that come with the library, for `load_checkpoint`."""
    return tuple(sorted(card.parent.name for card in MODELS.glob(f"*/{CARD}")))


def _build(card: Card) -> nn.Sequential:
    return build_net(card.net, card.shape, card.classes, card.seed, card.mean, card.std)


def _read_card(path: Path) -> Card:
    try:
        values = json.loads(content(path, _MOST_CARD), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not valid JSON ({error})") from error
    names = {f.name for f in fields(Card)}
    if not isinstance(values, dict) or set(values) != names:
        found = set(values) if isinstance(values, dict) else set()
        wrong = ", ".join(sorted(names ^ found))
        raise FileError(f"{path} is not a card of this version; missing or unknown: {wrong}")
    try:
        return Card(**values)
    except ArgumentError as error:
        raise FileError(f"{path} is damaged: {error}") from error


def _read_weights(path: Path, card: Card, most: int) -> dict[str, Tensor]:
    data = content(path, most)
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise FileError(
            f"{path} does not match the hash in {CARD} (truncated, or replaced); copy both again"
        )
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise FileError(f"{path} is not a safetensors file ({error})") from error


def _check(tensors: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    if set(tensors) != set(expected):
        wrong = ", ".join(sorted(set(tensors) ^ set(expected)))
        raise FileError(f"{where} has other tensors than its network: {wrong}")
    for name, tensor in tensors.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.is_floating_point() != want.is_floating_point():
            raise FileError(
                f"{name} of {where} is {tensor.dtype} {list(tensor.shape)}, "
                f"its network needs {want.dtype} {list(want.shape)}"
            )
        if tensor.is_floating_point() and tensor.dtype not in _TYPES:
            raise FileError(f"{name} of {where} is {tensor.dtype}; save it as float32 or float64")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name} of {where} has NaN or infinite values: training diverged")


def _dtype(tensors: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> torch.dtype:
    kinds = {t.dtype for name, t in tensors.items() if expected[name].is_floating_point()}
    if len(kinds) != 1:
        raise FileError(f"{where} mixes dtypes: {', '.join(sorted(map(str, kinds)))}")
    return kinds.pop()


def _is_number(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "safetensors": safetensors.__version__,
    }
