"""Checkpoints give back the same network, and anything damaged is refused."""

import dataclasses
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from certus.core.errors import ArgumentError, FileError, ModelError
from certus.zoo import NETS, Card, build_net, load_checkpoint, save_checkpoint, shipped

CASES = [(name, (1, 8, 8)) for name in NETS] + [("mlp", (30,)), ("lipschitz-mlp", (1, 28, 28))]


def inputs(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(6, *shape, generator=torch.Generator().manual_seed(3))


def trained(card: Card) -> nn.Sequential:
    """A network that differs from its initial weights and statistics."""
    net = build_net(card.net, card.shape, card.classes, card.seed, card.mean, card.std)
    x, y = inputs(card.shape), torch.arange(6) % card.classes
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    answers = net(x).flatten(1)  # of a denoiser: the first values of its images
    nn.functional.cross_entropy(answers, y).backward()
    optimizer.step()
    return net


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.parametrize("normalized", [False, True])
def test_round_trip_is_exact(
    tmp_path: Path, name: str, shape: tuple[int, ...], normalized: bool
) -> None:
    numbers = {"mean": (0.1307,), "std": (0.3081,)} if normalized else {}
    card = Card(net=name, shape=shape, classes=3, seed=5, **numbers)
    net = trained(card)
    save_checkpoint(tmp_path / "a" / "b", net, card)
    loaded, _ = load_checkpoint(str(tmp_path / "a" / "b"))
    x, first = inputs(shape), build_net(name, shape, 3, 5, card.mean, card.std).eval()
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(loaded(x), net.eval()(x))
    assert not torch.equal(loaded(x), first(x))  # the weights come from the file, not the seed


def test_card_round_trip(tmp_path: Path) -> None:
    card = Card(
        net="linear",
        shape=[30],
        classes=2,
        data="breast-cancer",
        recipe={"name": "ibp", "eps": (0.1, 0.2)},
        seed=4,
        metrics={"accuracy": 0.9},
        train_seconds=1.5,
    )
    saved = save_checkpoint(tmp_path, build_net("linear", (30,), 2), card)
    _, loaded = load_checkpoint(tmp_path)
    assert loaded == saved
    assert loaded.recipe == {"name": "ibp", "eps": [0.1, 0.2]}
    assert (loaded.shape, loaded.train_seconds, loaded.data) == ((30,), 1.5, "breast-cancer")
    assert (
        loaded.weights_sha256
        == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    )
    assert loaded.versions["torch"] == torch.__version__
    assert loaded.created.endswith("+00:00")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "model.safetensors"]


def test_double_precision_is_kept(tmp_path: Path) -> None:
    card = Card(net="lipschitz-mlp", shape=(30,), classes=2, mean=(0.1307,), std=(0.3081,))
    net = trained(card).double()
    save_checkpoint(tmp_path, net, card)
    loaded, _ = load_checkpoint(tmp_path)
    x = inputs((30,)).double()
    assert loaded(x).dtype == torch.float64
    assert torch.equal(loaded(x), net(x))


def test_loading_leaves_the_random_state(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, build_net("mlp", (30,), 2), Card(net="mlp", shape=(30,), classes=2))
    before = torch.get_rng_state()
    load_checkpoint(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


# Each damage is done to the folder of a good checkpoint of `mlp-small` on vectors of 30.
def edit(**values: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | values))

    return apply


def weights(make: Callable[[dict[str, torch.Tensor]], bytes]) -> Callable[[Path], None]:
    """Other weights with a card that vouches for them."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = make(safetensors.torch.load(path.read_bytes()))
        path.write_bytes(data)
        edit(weights_sha256=hashlib.sha256(data).hexdigest())(folder)

    return apply


def changed(**values: torch.Tensor | None) -> Callable[[Path], None]:
    """Replace (or drop) tensors; `w0` stands for the name `0.weight`."""
    names = {"w0": "0.weight", "b0": "0.bias", "extra": "extra"}
    new = {names[key]: value for key, value in values.items()}

    def make(tensors: dict[str, torch.Tensor]) -> bytes:
        merged = tensors | new
        return safetensors.torch.save({k: v for k, v in merged.items() if v is not None})

    return weights(make)


def cut(name: str, keep: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep]) and None


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else under the name of a file."""

    def apply(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return apply


def pipe(name: str) -> Callable[[Path], None]:
    return instead(name, os.mkfifo)


def folder_at(name: str) -> Callable[[Path], None]:
    return instead(name, Path.mkdir)


def device(name: str) -> Callable[[Path], None]:
    return instead(name, lambda path: path.symlink_to("/dev/zero"))


def sparse(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(1 << 40)

    return instead(name, make)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda d: (d / "card.json").unlink(), "cannot be read"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "cannot be read"),
    "card cut": (cut("card.json", 40), "not valid JSON"),
    "card empty": (cut("card.json", 0), "not valid JSON"),
    "card binary": (lambda d: (d / "card.json").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    "card deep": (lambda d: (d / "card.json").write_text("[" * 100_000), "not valid JSON"),
    "card list": (lambda d: (d / "card.json").write_text("[]"), "not a card"),
    "card field unknown": (edit(code="x"), "unknown: code"),
    "card field type": (edit(recipe="ibp"), "recipe of a card has the wrong type str"),
    "card seed": (edit(seed=-1), "seed"),
    "card shape text": (edit(shape=["30"]), "shape of a card must be numbers"),
    "net unknown": (edit(net="resnet"), "no network 'resnet'; choose one of: linear"),
    "net other": (edit(net="mlp"), "its network needs"),
    "shape huge": (edit(shape=[1, 10**6, 10**6]), "at most"),
    "classes huge": (edit(classes=10**9), "at most 1000"),
    "classes other": (edit(classes=3), "its network needs"),
    "weights cut": (cut("model.safetensors", 1000), "does not match the hash .*truncated"),
    "weights empty": (cut("model.safetensors", 0), "does not match the hash"),
    "one bit": (flip, "does not match the hash"),
    "hash": (edit(weights_sha256="0" * 64), "does not match the hash"),
    "vouched, cut": (weights(lambda t: safetensors.torch.save(t)[:-9]), "not a safetensors file"),
    "vouched, pickle": (weights(pickle.dumps), "not a safetensors file"),
    "vouched, short": (weights(lambda t: b"\0"), "not a safetensors file"),
    "vouched, long": (weights(lambda t: bytes(2_000_000)), "at most"),
    "tensor missing": (changed(b0=None), "other tensors than its network: 0.bias"),
    "tensor extra": (changed(extra=torch.zeros(2)), "other tensors than its network: extra"),
    "tensor shape": (changed(w0=torch.zeros(30, 24)), "0.weight .* its network needs"),
    "tensor integer": (changed(b0=torch.zeros(24, dtype=torch.int64)), "0.bias .* network needs"),
    "card mean": (edit(mean=[10**400], std=[1]), "mean of a card must be numbers"),
    "card std": (edit(mean=[0.0], std=[1e-60]), "std must lie in the range of float32"),
    "card shape": (edit(shape=[1, 10**400]), "shape of a card must be numbers"),
    "card NaN": (edit(train_seconds=float("nan")), "NaN is no number of JSON"),
    "card large": (lambda d: (d / "card.json").write_text(" " * (1 << 21)), "at most"),
    "card pipe": (pipe("card.json"), "is a pipe"),
    "card folder": (folder_at("card.json"), "is a folder"),
    "card device": (device("card.json"), "is a device"),
    "weights pipe": (pipe("model.safetensors"), "is a pipe"),
    "weights device": (device("model.safetensors"), "is a device"),
    "weights sparse": (sparse("model.safetensors"), "at most"),
    "float8": (changed(w0=torch.zeros(24, 30).to(torch.float8_e4m3fn)), "save it as float32"),
    "vouched, lying": (weights(lambda t: struct.pack("<Q", 2**63) + b"{}"), "not a safetensors"),
    "tensor dtypes": (changed(b0=torch.zeros(24).double()), "mixes dtypes"),
}


def good(folder: Path) -> Path:
    card = Card(net="mlp-small", shape=(30,), classes=2)
    save_checkpoint(folder, build_net("mlp-small", (30,), 2), card)
    load_checkpoint(folder)
    return folder


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused(tmp_path: Path, case: str) -> None:
    damage, text = DAMAGE[case]
    damage(good(tmp_path))
    with pytest.raises(FileError, match=text) as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    changed(b0=torch.full((24,), value))(good(tmp_path))
    with pytest.raises(ModelError, match=r"0\.bias .* NaN or infinite"):
        load_checkpoint(tmp_path)
    net = build_net("mlp-small", (30,), 2)
    nn.init.constant_(net[0].bias, value)
    with pytest.raises(ModelError, match="NaN or infinite"):
        save_checkpoint(tmp_path / "new", net, Card(net="mlp-small", shape=(30,), classes=2))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", shipped())
def test_what_comes_with_the_library_loads_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net, card = load_checkpoint(name)
    data, design, recipe, sigma = name.split("-")
    assert (card.data, card.net) == (data, design)
    assert (card.recipe["name"], card.recipe["sigma"]) == (recipe, float(sigma))
    assert not net.training and net(inputs(card.shape)).shape == (6, card.classes)
    (tmp_path / name).mkdir()
    (tmp_path / name / "ledger.sqlite").touch()
    assert load_checkpoint(name)[1] == card  # what a command leaves there is no network
    (tmp_path / name / "card.json").write_text("{")
    with pytest.raises(FileError, match=r"card\.json"):
        load_checkpoint(name)  # a network of that name comes first


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not a checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_mean_of_the_card_must_be_that_of_the_weights(tmp_path: Path) -> None:
    card = Card(net="linear", shape=(30,), classes=2, mean=(0.5,), std=(0.5,))
    save_checkpoint(tmp_path, trained(card), card)
    edit(mean=[0.25])(tmp_path)
    with pytest.raises(FileError, match="another mean or std"):
        load_checkpoint(tmp_path)


def test_a_crash_between_the_files_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certus.zoo.checkpoint as module

    good(tmp_path)
    write = module.replace_file

    def crash(path: Path, data: bytes) -> None:
        if path.name == "card.json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(module, "replace_file", crash)
    card = Card(net="mlp-small", shape=(30,), classes=2, seed=1)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, build_net("mlp-small", (30,), 2, seed=1), card)
    with pytest.raises(FileError, match="does not match the hash"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "module",
    [
        build_net("mlp", (30,), 2),
        build_net("mlp-small", (30,), 3),
        build_net("mlp-small", (30,), 2, mean=(0.5,), std=(0.5,)),
        nn.Sequential(
            nn.Linear(30, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2)
        ),  # the same tensors as mlp-small: only the activations tell them apart
    ],
    ids=["net", "classes", "mean", "activation"],
)
def test_a_module_that_is_not_the_cards_is_not_saved(tmp_path: Path, module: nn.Module) -> None:
    with pytest.raises(ArgumentError, match="the module is not build_net"):
        save_checkpoint(tmp_path / "a", module, Card(net="mlp-small", shape=(30,), classes=2))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("value", [float("nan"), object(), torch.zeros(1)])
def test_a_card_that_is_not_json_is_not_saved(tmp_path: Path, value: object) -> None:
    card = Card(net="linear", shape=(30,), classes=2)
    card = dataclasses.replace(card, metrics={"loss": value})
    with pytest.raises(ArgumentError, match="plain JSON"):
        save_checkpoint(tmp_path / "a", build_net("linear", (30,), 2), card)
    assert not (tmp_path / "a").exists()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    with pytest.raises(FileError, match="cannot be written"):
        good(path)
    with pytest.raises(FileError, match="not a checkpoint folder"):
        load_checkpoint(path)
