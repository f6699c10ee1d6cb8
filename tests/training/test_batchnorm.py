"""One affine map: what is bounded is the function that gave the logits."""

import copy

import pytest
import torch
from torch import nn

from certus.bounding import IBP, crown_ibp
from certus.core import ArgumentError, ModelError
from certus.graph import batchnorm, trace
from certus.graph.affine import BatchNorm
from certus.graph.batchnorm import with_batch_statistics
from certus.threats import Linf
from certus.training import Constant, IBPLoss, Plan, Standard, train


def network():
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 3),
    ).double()
    for part in module:
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return module.eval()


@pytest.fixture
def x():
    return torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def test_equals_torch_in_training_mode(x):
    module = network()
    twin = copy.deepcopy(module).train()
    graph = trace(module, x[:1])
    for batch in (x, x**2, x[:3]):
        frozen, logits = with_batch_statistics(graph, batch, 0.1)
        expected = twin(batch)
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(frozen(batch), expected)
    moved = {name: value for name, value in twin.named_buffers() if "running" in name}
    assert moved
    for name, theirs in moved.items():
        torch.testing.assert_close(module.get_buffer(name), theirs, msg=name)


def test_gradients_equal_torch(x):
    module = network()
    twin = copy.deepcopy(module).train()
    with_batch_statistics(trace(module, x[:1]), x)[1].square().sum().backward()
    twin(x).square().sum().backward()
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("method", [IBP(), crown_ibp()])
def test_bounds_at_eps_zero_are_the_clean_logits(x, method):
    frozen, logits = with_batch_statistics(trace(network(), x[:1]), x)
    bounds = method(frozen, Linf(0.0).region(x))
    torch.testing.assert_close(bounds.lower, logits)
    torch.testing.assert_close(bounds.upper, logits)


def test_bounds_with_running_statistics_are_violated(x):
    """Mistake: the clean pass normalises by the batch, the bounds by the running statistics."""
    module = network()
    graph = trace(module, x[:1])
    frozen, logits = with_batch_statistics(graph, x, None)
    region = Linf(0.01).region(x)
    right, wrong = IBP()(frozen, region), IBP()(graph, region)
    assert ((right.lower <= logits) & (logits <= right.upper)).all()
    assert ((logits < wrong.lower) | (logits > wrong.upper)).any()


def test_bounds_hold_for_the_frozen_map(x):
    frozen, _ = with_batch_statistics(trace(network(), x[:1]), x)
    region = Linf(0.1).region(x)
    bounds = IBP()(frozen, region)
    for k in range(50):
        z = frozen(region.sample([torch.Generator().manual_seed(100 * k + b) for b in range(6)]))
        assert (bounds.lower <= z + 1e-9).all() and (z <= bounds.upper + 1e-9).all()


def test_without_momentum_the_module_is_unchanged(x):
    module = network()
    before = copy.deepcopy(module.state_dict())
    with_batch_statistics(trace(module, x[:1]), x, None)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_without_batch_norm_the_graph_is_returned(x):
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double().eval(), x[:1])
    same, logits = with_batch_statistics(graph, x)
    assert same is graph
    assert torch.equal(logits, graph(x))


def test_statistics_are_of_the_batch_alone(x):
    frozen, _ = with_batch_statistics(trace(network(), x[:1]), x)
    op = next(node.op for node in frozen.nodes if isinstance(node.op, BatchNorm))
    assert op.mean.requires_grad and op.variance.requires_grad


@pytest.mark.parametrize(
    ("size", "momentum", "word"), [(1, 0.1, "larger batch"), (3, 1.5, "momentum")]
)
def test_refusals(x, size, momentum, word):
    with pytest.raises(ArgumentError, match=word):
        with_batch_statistics(trace(network(), x[:1]), x[:size], momentum)


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 2, 2)])
def test_the_gradient_of_the_statistics_is_the_slope(shape):
    """Mean and variance each, first and second derivative; their values are torch's."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    dims = [d for d in range(len(shape)) if d != 1]

    def moments(x):
        return batchnorm._Moments.apply(x, dims)

    variance, mean = torch.var_mean(x, dims, correction=0)
    torch.testing.assert_close(moments(x), (mean, variance))
    assert torch.autograd.gradcheck(moments, x.requires_grad_())
    assert torch.autograd.gradgradcheck(moments, x)


def test_the_affine_part_of_a_group_normalisation_takes_no_batch_statistics(x):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 3))
    nn.init.normal_(module[1].weight)
    module.double().eval()
    _, logits = with_batch_statistics(trace(module, x[:1]), x, None)
    torch.testing.assert_close(logits, module(x))


def test_nothing_moves_where_a_statistic_would_not_be_finite(x):
    module = network().float()
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        module[4].weight *= 1e30
    with pytest.raises(ModelError, match="not finite"):
        with_batch_statistics(trace(module, x[:1].float()), x.float(), 0.1)
    for name, value in module.named_buffers():
        assert torch.equal(value, before[name]), name


Y = torch.tensor([0, 1, 2, 0, 1, 2])
PLAN = Plan(epochs=2, batch=6, rate=Constant(1e-2))
BOUNDED = Plan(epochs=2, batch=6, eps=Constant(0.01), kappa=Constant(0.5))


def own_mode(module):
    module.train()
    module[1].eval()


def freeze(module):
    module[1].requires_grad_(False)


class KeepsIts(nn.Sequential):
    """Its method `train` leaves the first normalisation in evaluation mode."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


def wrap(module):
    module.__class__ = KeepsIts


@pytest.mark.parametrize(("loss", "plan"), [(Standard(), PLAN), (IBPLoss(), BOUNDED)])
@pytest.mark.parametrize("freezes", [own_mode, freeze, wrap])
def test_frozen_statistics_stay(x, freezes, loss, plan):
    module = network()
    freezes(module)
    before = copy.deepcopy(module.state_dict())
    train(module, x, Y, loss, plan)
    after = module.state_dict()
    for name in ("1.running_mean", "1.running_var"):
        assert torch.equal(before[name], after[name])
        assert not torch.equal(before[name.replace("1.", "5.")], after[name.replace("1.", "5.")])
    assert torch.equal(before["1.weight"], after["1.weight"]) == (freezes is freeze)


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_each_layer_moves_by_its_own_momentum(x, momentum):
    """Also as a cumulative average; a plan's momentum counts for all."""
    module = network()
    module[1].momentum = module[5].momentum = momentum
    start = copy.deepcopy(module)
    train(module, x, Y, Standard(), Plan(epochs=3, batch=6, rate=Constant(1e-30)))
    twin = copy.deepcopy(start).train()
    for _ in range(3):
        twin(x)
    shared = copy.deepcopy(start)
    train(shared, x, Y, Standard(), Plan(epochs=3, batch=6, rate=Constant(1e-30), momentum=0.0))
    for position in (1, 5):
        torch.testing.assert_close(module[position].running_var, twin[position].running_var)
        torch.testing.assert_close(module[position].running_mean, twin[position].running_mean)
        assert torch.equal(shared[position].running_var, start[position].running_var)


def test_an_error_leaves_weights_and_statistics_of_the_step_before(x):
    module = network().float()
    state = []

    class Watched(Standard):
        def __call__(self, graph, logits, x, y, moment):
            state.append(copy.deepcopy(module.state_dict()))
            return super().__call__(graph, logits, x, y, moment)

    with pytest.raises(ModelError):
        train(module, x.float(), Y, Watched(), Plan(epochs=9, batch=3, rate=Constant(1e30)))
    assert len(state) > 1
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[-1][name]) and bool(torch.isfinite(value).all()), name


def test_a_variance_that_overflows_is_an_error_though_the_loss_is_finite(x):
    module = network().float()
    with torch.no_grad():
        module[0].weight *= 1e30
    with pytest.raises(ModelError, match="batch statistics"):
        train(module, x.float(), Y, Standard(), PLAN)
    assert all(bool(torch.isfinite(b).all()) for b in module.buffers())
