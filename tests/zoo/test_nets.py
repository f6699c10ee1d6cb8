"""Every network of the table builds, evaluates and is reproducible."""

import pytest
import torch
from torch import nn

from certus.core.errors import ArgumentError
from certus.zoo import NETS, Normalize, build_net

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "vector": (30,)}
CASES = [
    (name, shape)
    for name in NETS
    for shape in SHAPES.values()
    if len(shape) == 3 or not NETS[name].images
]


def draws(shape: tuple[int, ...], batch: int = 5) -> torch.Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_builds_and_evaluates(name: str, shape: tuple[int, ...]) -> None:
    net = build_net(name, shape, 4).eval()
    logits = net(draws(shape))
    assert type(net) is nn.Sequential
    assert logits.shape == ((5, *shape) if name == "dncnn" else (5, 4))
    assert bool(torch.isfinite(logits).all())
    assert float(logits.detach().std(0).max()) > 0


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_seed_decides_and_the_global_state_stays(name: str, shape: tuple[int, ...]) -> None:
    x, before = draws(shape), torch.get_rng_state()
    a, b, other = (build_net(name, shape, 3, seed).eval()(x) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(11)
    assert torch.equal(a, build_net(name, shape, 3, 7).eval()(x))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_cnn_small_is_cnn_a_on_mnist() -> None:
    net = build_net("cnn-small", (1, 28, 28), 10)
    kinds = [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in net] == kinds
    shapes = [tuple(p.shape) for name, p in net.named_parameters() if name.endswith("weight")]
    assert shapes == [(16, 1, 4, 4), (32, 16, 4, 4), (100, 1568), (10, 100)]
    assert (net[0].stride, net[0].padding) == ((2, 2), (1, 1))
    small = build_net("cnn-small", (1, 8, 8), 10)
    assert [small[i].kernel_size for i in (0, 2)] == [(3, 3), (3, 3)]
    assert small[5].in_features == 32 * 2 * 2


def test_lenet_is_that_of_macer_and_consistency_on_mnist() -> None:
    net = build_net("lenet", (1, 28, 28), 10)
    shapes = [tuple(p.shape) for name, p in net.named_parameters() if name.endswith("weight")]
    assert shapes == [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]
    x = draws((1, 28, 28))
    hidden = x
    for conv in (net[0], net[3]):
        hidden = nn.functional.max_pool2d(conv(hidden).relu(), 2)
    expected = net[9](net[7](hidden.flatten(1)).relu())
    torch.testing.assert_close(net(x), expected)


def test_a_denoiser_that_predicts_no_noise_is_the_identity() -> None:
    net = build_net("dncnn", (3, 8, 8), 10)
    last = net[0][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    assert torch.equal(net(draws((3, 8, 8))), draws((3, 8, 8)))


def test_widths() -> None:
    def widths(name: str, shape: tuple[int, ...]) -> list[int]:
        net = build_net(name, shape, 3)
        return [layer.out_features for layer in net if isinstance(layer, nn.Linear)]

    assert widths("linear", (30,)) == [3]
    assert widths("mlp", (1, 8, 8)) == [128, 128, 3]
    assert widths("mlp", (30,)) == [64, 64, 3]
    assert widths("mlp-small", (30,)) == [24, 24, 3]
    assert widths("lipschitz-mlp", (30,)) == [128, 128, 3]
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in build_net("cnn-bn", (1, 8, 8), 3))


@pytest.mark.parametrize("shape", list(SHAPES.values()))
def test_orthogonal_layers_have_singular_values_one(shape: tuple[int, ...]) -> None:
    net = build_net("lipschitz-mlp", shape, 10)
    hidden = [layer for layer in net if isinstance(layer, nn.Linear)][:-1]
    assert len(hidden) == 2
    for layer in hidden:
        values = torch.linalg.svdvals(layer.weight)
        torch.testing.assert_close(values, torch.ones_like(values))


def test_normalize_is_the_first_layer() -> None:
    net = build_net("linear", (3, 4, 4), 5, seed=2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    x = draws((3, 4, 4))
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 1.0])
    raw = (x - mean[:, None, None]) / std[:, None, None]
    assert isinstance(net[0], Normalize)
    torch.testing.assert_close(net(x), build_net("linear", (3, 4, 4), 5, seed=2)(raw))
    vector = Normalize([0.5], [2.0], (6,))
    torch.testing.assert_close(vector(torch.ones(2, 6)), torch.full((2, 6), 0.25))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("resnet", (1, 8, 8), 10), "linear, mlp, mlp-small, cnn-small"),
        (("cnn-small", (30,), 10), "choose one of: linear, mlp, mlp-small, lipschitz-mlp"),
        (("mlp", (8, 8), 10), r"\[N\] or \[C, H, W\]"),
        (("mlp", (0,), 10), r"\[N\] or \[C, H, W\]"),
        (("mlp", (2.0,), 10), r"\[N\] or \[C, H, W\]"),
        (("mlp", (1, 10**6, 10**6), 10), "at most"),
        (("mlp", (30,), 1), "classes must be an integer >= 2"),
        (("mlp", (30,), 10**9), "at most 1000"),
        (("mlp", (30,), 2, -1), "seed"),
        (("mlp", (30,), 2, 0, (0.1,), ()), "mean and std"),
        (("mlp", (3, 8, 8), 2, 0, (0.1, 0.2), (1.0, 1.0)), "mean and std must have 1 or 3"),
        (("mlp", (30,), 2, 0, (0.1,), (0.0,)), "std must be positive"),
        (("mlp", (30,), 2, 0, (float("nan"),), (1.0,)), "finite"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple, text: str) -> None:
    with pytest.raises(ArgumentError, match=text) as caught:
        build_net(*arguments)
    assert "\n" not in str(caught.value)
