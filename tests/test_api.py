"""The facade: the promised names and shapes, the flow of a first hour, and every error in one line."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import certus
from certus.attacks import PGD
from certus.core import ArgumentError, CertusError, ModelError, UnsupportedError, Verdict

NAMES = (
    "trace", "bounds", "certify", "attack", "Linf", "L2", "L1", "Box", "Region", "Smoothed",
    "Gaussian", "Certifier", "Certificates", "Bounds", "Verdict", "Reason", "BoundMethod",
    "load", "load_property", "Problem", "L0", "Patch", "Transformed",
    "IBP", "Crown", "Tightest", "Chunked", "Cases", "crown_ibp", "Graph", "CertusError", "ArgumentError",
    "ModelError", "UnsupportedError", "FileError", "ContradictionError", "__version__",
)  # fmt: skip


def module(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Flatten(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)
    return nn.Sequential(*layers).to(dtype).eval()


def inputs(batch: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(2)
    return torch.rand(batch, 2, 4, dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_public_names_exist(name):
    assert hasattr(certus, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "tightest", certus.Crown()])
def test_bounds_have_the_promised_shape_and_hold(method, dtype):
    x, model, threat = inputs(dtype=dtype), module(dtype), certus.Linf(0.05)
    b = certus.bounds(model, x, threat, method=method)
    assert b.lower.shape == b.upper.shape == (4, 3) and b.lower.dtype == dtype
    assert not b.lower.requires_grad
    for k in range(50):
        point = threat.region(x).sample(
            [torch.Generator().manual_seed(50 * i + k) for i in range(4)]
        )
        z = model(point)
        assert bool((z >= b.lower - 1e-5).all() & (z <= b.upper + 1e-5).all())
    graph = certus.trace(model, x)
    region = certus.bounds(graph, threat.region(x), method=method)  # a Region for both
    assert torch.equal(region.lower, b.lower) and torch.equal(region.upper, b.upper)
    box = certus.Box(threat.region(x).lower, threat.region(x).upper)
    torch.testing.assert_close(certus.bounds(graph, box, method=method).lower, b.lower)
    spec = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=dtype)
    assert certus.bounds(graph, x, threat, method=method, spec=spec).lower.shape == (4, 1)


@pytest.mark.parametrize(
    "eps", [0.03, torch.tensor([0.0, 0.01, 0.02, 0.5]), torch.full((4, 2, 4), 0.02)]
)
def test_certify_gives_what_was_promised(eps):
    x, model = inputs(), module()
    y = model(x).argmax(1)
    c = certus.certify(model, x, y, certus.Linf(eps), timeout=10.0)
    assert c.certified.dtype == torch.bool and c.certified.shape == (4,)
    assert all(isinstance(v, Verdict) for v in c.verdict) and len(c.verdict) == len(c) == 4
    assert c.radius.shape == c.margin.shape == c.seconds.shape == (4,)
    assert all(w is None or w.shape == x.shape[1:] for w in c.witness) and len(c.witness) == 4
    assert c.method == "auto" and c.threat.startswith("linf") and c.confidence == 1.0
    assert bool(c.certified.any())
    pytest.importorskip("pandas")
    assert len(c.to_frame()) == 4


def test_certify_takes_labels_of_any_integer_type_and_a_stable_prediction():
    x, graph = inputs(), certus.trace(module(), inputs())
    y = graph(x).argmax(1)
    first = certus.certify(graph, x, y, certus.Linf(0.01), method="crown")
    for dtype in (torch.int32, torch.int16, torch.uint8):
        again = certus.certify(graph, x, y.to(dtype), certus.Linf(0.01), method="crown")
        assert again.verdict == first.verdict


def test_attack_gives_inputs_and_success():
    x, model, threat = inputs(), module(), certus.Linf(0.4)
    y = model(x).argmax(1)
    a = certus.attack(model, x, y, threat, method="pgd", steps=20)
    assert a.inputs.shape == x.shape and a.success.shape == (4,) and a.success.dtype == torch.bool
    assert bool(threat.region(x).contains(a.inputs).all()) and bool(a.success.any())
    assert bool((model(a.inputs).argmax(1) != y)[a.success].all())
    assert certus.attack(model, x, y, threat, method="fgsm").inputs.shape == x.shape


def test_smoothed_predicts_and_certifies():
    x, model = inputs(), module()
    g = certus.Smoothed(model, noise=certus.Gaussian(0.1), num_classes=3)
    classes = g.predict(x, n=100, alpha=1e-2)
    assert classes.shape == (4,) and classes.dtype == torch.int64 and bool((classes >= -1).all())
    c = g.certify(x, n0=20, n=200, alpha=1e-2)
    assert c.confidence == 0.99 and bool((c.radius[c.certified] > 0).all())
    own = certus.certify(g, x, model(x).argmax(1), certus.L2(0.0), n0=20, n=200, alpha=1e-2)
    assert own.method == "smoothing" and torch.equal(own.prediction, c.prediction)
    agree = own.prediction == model(x).argmax(1)
    assert torch.equal(own.radius[agree], c.radius[agree])


def test_the_flow_of_a_first_hour():
    x, y = inputs(16), torch.randint(0, 3, (16,))
    model = module()
    threat = certus.Linf(eps=0.02)
    graph = certus.trace(model, x)
    found = certus.bounds(graph, x, threat, method="crown")
    assert bool((found.lower <= graph(x)).all() & (graph(x) <= found.upper).all())
    certificates = certus.certify(graph, x, y, threat)
    attacked = certus.attack(graph, x, y, threat, steps=10)
    assert not bool((certificates.certified & attacked.success).any())
    for b, verdict in enumerate(certificates.verdict):
        if verdict is certus.Verdict.FALSIFIED:
            assert int(model(certificates.witness[b][None]).argmax(1)) != int(y[b])
        elif verdict is certus.Verdict.UNKNOWN:
            assert certificates.reason[b].value


class Gamma(nn.Module):
    """Uses an operation that has no rule."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(x.flatten(1))


def broken() -> nn.Module:
    model = module()
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    return model


X, Y, EPS = inputs(), torch.zeros(4, dtype=torch.int64), certus.Linf(0.1)
ERRORS = {
    "training mode": (lambda: certus.certify(module().train(), X, Y, EPS), ModelError, "eval()"),
    "training mode, attack": (
        lambda: certus.attack(module().train(), X, Y, EPS),
        ModelError,
        "eval()",
    ),
    "training mode, bounds": (
        lambda: certus.bounds(module().train(), X, EPS),
        ModelError,
        "eval()",
    ),
    "nan weights": (lambda: certus.certify(broken(), X, Y, EPS), ModelError, "NaN"),
    "nan weights, bounds": (lambda: certus.bounds(broken(), X, EPS), ModelError, "NaN"),
    "not a module": (lambda: certus.trace(3, X), ModelError, "Module"),
    "wrong shape": (lambda: certus.certify(module(), X[:, :, :3], Y, EPS), ModelError, "(2, 2, 3)"),
    "wrong shape, graph": (
        lambda: certus.certify(certus.trace(module(), X), X[:, :, :3], Y, EPS),
        ArgumentError,
        "2, 4",
    ),
    "wrong shape, bounds": (
        lambda: certus.bounds(certus.trace(module(), X), X[:, :, :3], EPS),
        ArgumentError,
        "2, 4",
    ),
    "no batch": (lambda: certus.certify(module(), X[0, 0], Y, EPS), CertusError, "batch"),
    "empty batch": (lambda: certus.certify(module(), X[:0], Y[:0], EPS), ArgumentError, "batch"),
    "empty batch, graph": (
        lambda: certus.bounds(certus.trace(module(), X), X[:0], EPS),
        ArgumentError,
        "batch",
    ),
    "label too large": (lambda: certus.certify(module(), X, Y + 3, EPS), ArgumentError, "0..2"),
    "label negative": (lambda: certus.attack(module(), X, Y - 1, EPS), ArgumentError, "0..2"),
    "labels short": (lambda: certus.certify(module(), X, Y[:3], EPS), ArgumentError, "[4]"),
    "labels float": (lambda: certus.certify(module(), X, Y.float(), EPS), ArgumentError, "integer"),
    "eps negative": (lambda: certus.Linf(-0.1), ArgumentError, ">= 0"),
    "eps nan": (lambda: certus.L2(float("nan")), ArgumentError, "finite"),
    "eps shape": (
        lambda: certus.certify(module(), X, Y, certus.Linf(torch.ones(3))),
        ArgumentError,
        "eps",
    ),
    "clip": (lambda: certus.Linf(0.1, clip=(1.0, 0.0)), ArgumentError, "low < high"),
    "outside clip": (lambda: certus.certify(module(), X + 1, Y, EPS), ArgumentError, "clip"),
    "outside box": (
        lambda: certus.certify(module(), X, Y, certus.Box(X + 1, X + 2)),
        ArgumentError,
        "box",
    ),
    "integer x": (lambda: certus.certify(module(), X.long(), Y, EPS), ArgumentError, "floating"),
    "integer x, graph": (
        lambda: certus.attack(certus.trace(module(), X), X.long(), Y, EPS),
        ArgumentError,
        "floating",
    ),
    "nan x": (lambda: certus.certify(module(), X * float("nan"), Y, EPS), ArgumentError, "NaN"),
    "float64 x": (
        lambda: certus.certify(module(), X.double(), Y, EPS),
        CertusError,
        "x.to(torch.float32)",
    ),
    "float64 x, graph": (
        lambda: certus.certify(certus.trace(module(), X), X.double(), Y, EPS),
        ArgumentError,
        "float64",
    ),
    "float64 x, bounds": (
        lambda: certus.bounds(certus.trace(module(), X), X.double(), EPS),
        ArgumentError,
        "float64",
    ),
    "float64 x, attack": (
        lambda: certus.attack(module(), X.double(), Y, EPS),
        ArgumentError,
        "float64",
    ),
    "unsupported": (lambda: certus.trace(Gamma().eval(), X), UnsupportedError, "test_api.py"),
    "unknown method": (
        lambda: certus.certify(module(), X, Y, EPS, method="magic"),
        ArgumentError,
        "crown",
    ),
    "unknown bounds": (
        lambda: certus.bounds(module(), X, EPS, method="magic"),
        ArgumentError,
        "ibp",
    ),
    "unknown attack": (
        lambda: certus.attack(module(), X, Y, EPS, method="magic"),
        ArgumentError,
        "pgd",
    ),
    "method of no kind": (
        lambda: certus.certify(module(), X, Y, EPS, method=3),
        ArgumentError,
        "int",
    ),
    "bounds of no kind": (lambda: certus.bounds(module(), X, EPS, method=3), ArgumentError, "int"),
    "attack of no kind": (
        lambda: certus.attack(module(), X, Y, EPS, method=3),
        ArgumentError,
        "int",
    ),
    "unknown option": (
        lambda: certus.certify(module(), X, Y, EPS, method="crown", n=3),
        ArgumentError,
        "no option n",
    ),
    "unknown attack option": (
        lambda: certus.attack(module(), X, Y, EPS, tries=3),
        ArgumentError,
        "no option tries",
    ),
    "options beside an object": (
        lambda: certus.attack(module(), X, Y, EPS, PGD(), steps=3),
        ArgumentError,
        "name",
    ),
    "smoothed with a method": (
        lambda: certus.certify(
            certus.Smoothed(module(), certus.Gaussian(0.1), 3), X, Y, certus.L2(0.1), method="milp"
        ),
        ArgumentError,
        "smoothing",
    ),
    "no threat": (lambda: certus.bounds(module(), X), ArgumentError, "Linf"),
    "region and threat": (
        lambda: certus.bounds(module(), EPS.region(X), EPS),
        ArgumentError,
        "Region",
    ),
    "spec shape": (
        lambda: certus.bounds(module(), X, EPS, spec=torch.ones(1, 2, 5)),
        ArgumentError,
        "spec",
    ),
    "ids short": (lambda: certus.certify(module(), X, Y, EPS, ids=[1]), ArgumentError, "ids"),
    "milp with l2": (
        lambda: certus.certify(module(), X, Y, certus.L2(0.1), method="milp"),
        UnsupportedError,
        "milp",
    ),
    "classes": (
        lambda: certus.Smoothed(module(), certus.Gaussian(0.1), 5).predict(X),
        ModelError,
        "5",
    ),
    "sigma": (lambda: certus.Gaussian(0.0), ArgumentError, "> 0"),
    "eps alone": (lambda: certus.bounds(module(), X, 0.1), ArgumentError, "threat"),
    "a ball": (
        lambda: certus.certify(module(), X, Y, certus.L2(1).region(X)),
        ArgumentError,
        "threat",
    ),
    "array": (lambda: certus.bounds(module(), X.numpy(), EPS), ArgumentError, "tensor"),
    "option of a bound": (
        lambda: certus.certify(module(), X, Y, EPS, method="crown", iterations=3),
        ArgumentError,
        "memory",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_of_its_kind_and_one_line(name):
    call, kind, text = ERRORS[name]
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert text in message and "\n" not in message and 10 < len(message) < 400


def test_bounds_that_are_no_numbers_become_infinite():
    model, x = module(), inputs()
    graph = certus.trace(model, x)
    with torch.no_grad():
        model[3].bias[0] = float("nan")
    for method in ("ibp", "crown", "tightest"):
        found = certus.bounds(graph, x, certus.Linf(0.1), method=method)
        assert bool((found.lower[:, 0] == -torch.inf).all()), method
        assert bool((found.upper[:, 0] == torch.inf).all()), method
        assert not bool(found.lower.isnan().any() | found.upper.isnan().any())


def test_sizes_of_one_input_do_not_depend_on_the_example_of_the_trace():
    graph = certus.trace(module(), inputs(1))
    assert certus.bounds(graph, inputs(7), certus.Linf(0.1)).lower.shape == (7, 3)


def test_bounds_that_cross_become_infinite(monkeypatch):
    graph = certus.trace(module(), inputs())
    true = certus.IBP.bound

    def crossed(self, state, rows):
        found = true(self, state, rows)
        low, high = found.lower.clone(), found.upper.clone()
        low[0], high[0] = found.upper[0] + 1, found.lower[0]
        return certus.core.Bounds(low, high)

    monkeypatch.setattr(certus.IBP, "bound", crossed)
    found = certus.bounds(graph, inputs(), certus.Linf(0.1), method="ibp")
    assert bool((found.lower[:, 0] == -torch.inf).all() & (found.upper[:, 0] == torch.inf).all())
    assert bool(torch.isfinite(found.lower[:, 1:]).all())
