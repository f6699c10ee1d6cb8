"""Certifier x threat: what is proven survives attacks, what is refuted replays, none disagree."""

from functools import cache

import pytest
import torch
from tests.certifiers.nets import digits, graph, inputs, net, threats

from certus.attacks import PGD
from certus.certifiers import CERTIFIERS, Certifier, certifier
from certus.core import Certificates, Reason, UnsupportedError, Verdict
from certus.core.random import per_input
from certus.threats import L1, L2, Linf

OPTIONS = {
    "milp": {"timeout": 5.0},
    "auto": {"timeout": 20.0, "attack": PGD(steps=10, restarts=1)},
    "smoothing": {"n": 500},
}
NETWORK = [name for name in CERTIFIERS if name != "smoothing"]  # claims about the network itself
THREATS = list(threats(inputs()[0]))
CASES = [(m, t) for m in NETWORK for t in THREATS if m != "milp" or not t.startswith(("l1", "l2"))]


def build(method: str) -> Certifier:
    return certifier(method, **OPTIONS.get(method, {}))


@cache
def answer(method: str, threat: str) -> Certificates:
    x, y = inputs()
    return build(method)(graph(), x, y, threats(x)[threat])


@cache
def margins(threat: str) -> torch.Tensor:
    """The smallest margin [B] over attacked points and samples of the region."""
    x, y = inputs()
    model, chosen = net(), threats(x)[threat]
    points = [PGD(steps=40, restarts=3, seed=s)(model, x, y, chosen).inputs for s in (1,)]
    region = chosen.region(x)
    points += [region.sample(per_input(k, range(len(x)))) for k in range(30)]
    found = []
    for point in points:
        assert bool(region.contains(point).all())
        z = model(point)
        own = z.gather(1, y[:, None])
        found.append((own - z.scatter(1, y[:, None], -torch.inf)).amin(1))
    return torch.stack(found).amin(0)


@pytest.mark.parametrize(("method", "threat"), CASES)
def test_what_is_verified_survives_and_what_is_falsified_replays(method, threat):
    c, (x, y) = answer(method, threat), inputs()
    chosen, found = threats(x)[threat], margins(threat)
    region, radius = chosen.region(x), chosen.radius(x)
    assert torch.equal(c.prediction, graph()(x).argmax(1))
    assert bool(torch.isfinite(c.seconds).all()) and bool((c.seconds >= 0).all())
    for b, verdict in enumerate(c.verdict):
        if verdict is Verdict.VERIFIED:
            assert found[b] > 0, "an attack beats a proof"
            assert c.prediction[b] == y[b] and c.witness[b] is None
            assert not c.margin[b] > found[b] + 1e-5, "the margin bound lies above a margin"
            if not build(method).gives_radius:
                assert torch.equal(c.radius[b].isnan(), radius[b].isnan())
                assert c.radius[b].isnan() or c.radius[b] == radius[b]
        elif verdict is Verdict.FALSIFIED:
            point = c.witness[b]
            assert bool(region.select(torch.tensor([b])).contains(point[None])), "zero tolerance"
            logits = net()(point[None])[0]
            label = int(y[b])
            assert torch.cat([logits[:label], logits[label + 1 :]]).max() >= logits[label]
        else:
            assert c.reason[b] is not None and c.witness[b] is None
    assert c.verdict[-1] is Verdict.FALSIFIED and c.reason[-1] is Reason.MISCLASSIFIED
    assert torch.equal(c.witness[-1], x[-1])


@pytest.mark.parametrize("threat", THREATS)
def test_methods_never_contradict_and_auto_decides_whatever_a_stage_decides(threat):
    own = [m for m, t in CASES if t == threat]
    answers = {m: answer(m, threat).verdict for m in own}
    decided = (Verdict.VERIFIED, Verdict.FALSIFIED)
    for b in range(len(inputs()[0])):
        said = {verdicts[b] for verdicts in answers.values()}
        assert not said >= set(decided), f"input {b}: {[(m, v[b]) for m, v in answers.items()]}"
        for stage in ("ibp", "lipschitz", "crown"):
            if answers[stage][b] in decided:
                assert answers["auto"][b] is answers[stage][b]
        if threat.startswith(("linf", "box")):
            assert answers["milp"][b] in decided, "these are small enough to decide"
            assert answers["auto"][b] is answers["milp"][b]


def test_the_table_of_cases_is_not_vacuous():
    verdicts = [v for method, threat in CASES for v in answer(method, threat).verdict]
    assert all(verdicts.count(kind) > 25 for kind in Verdict)
    assert all(
        Verdict.VERIFIED in answer(m, t).verdict
        for m, t in CASES
        if m == "auto" and t != "l1-large"
    )
    assert any(r is Reason.ATTACKED for r in answer("milp", "linf-large").reason)


@pytest.mark.parametrize("method", ["ibp", "crown", "lipschitz", "milp", "auto"])
@pytest.mark.parametrize("threat", ["linf-input", "linf-element", "l2-element", "box"])
def test_a_batch_answers_as_its_inputs_do_alone(method, threat):
    if method == "milp" and threat.startswith("l2"):
        pytest.skip("milp takes boxes")
    together, (x, y) = answer(method, threat), inputs()
    query = build(method)._query(graph(), x, y, threats(x)[threat], None, lambda *_: None)
    for b in (0, 5, 7):
        part = query.select(torch.tensor([b]))
        alone = build(method).run(part)[0]
        assert alone.verdict is together.verdict[b]


def test_milp_refuses_what_is_no_box():
    x, y = inputs(2)
    for threat in (L1(0.1), L2(0.1)):
        with pytest.raises(UnsupportedError, match="box"):
            build("milp")(graph(), x, y, threat)


def test_radii_are_in_the_norm_of_the_threat():
    x, y = inputs()
    for method in ("lipschitz", "smoothing"):
        given = {t.norm: build(method)(graph(), x, y, t) for t in (L2(0.0), Linf(0.0), L1(0.0))}
        l2, linf, l1 = (given[n].radius for n in ("l2", "linf", "l1"))
        assert bool((l2 > 0).any())
        torch.testing.assert_close(linf, l2 / 64**0.5, rtol=1e-6, atol=0)
        assert bool((linf <= l2 / 64**0.5).all()), "never rounded up"
        assert torch.equal(l1, l2)
        boxed = build(method)(graph(), x, y, threats(x)["box"])
        assert bool((boxed.radius.isnan() | (boxed.radius == 0)).all())
        # Just inside the radius is verified, just outside is not.
        b = int(l2.argmax())
        for scale, verdict in ((0.999, Verdict.VERIFIED), (1.001, Verdict.UNKNOWN)):
            threat = L2(float(l2[b]) * scale, clip=None)
            c = build(method)(graph(), x, y, threat)
            assert c.verdict[b] is verdict
            assert c.reason[b] is (None if scale < 1 else Reason.RADIUS)
        torch.testing.assert_close(c.radius, l2)


def test_eps_zero_is_decided_by_the_prediction():
    x, y = inputs()
    for method in NETWORK:
        c = build(method)(graph(), x, y, Linf(0.0))
        right = (graph()(x).argmax(1) == y).tolist()
        assert [v is Verdict.VERIFIED for v in c.verdict] == right, method


def test_convolutions_are_certified_too():
    x, y = digits().x_test[:4], digits().y_test[:4]
    model = graph("cnn-bn")
    for method in ("ibp", "crown", "auto"):
        c = certifier(method)(model, x, y, Linf(0.002))
        attacked = PGD(steps=20)(net("cnn-bn"), x, y, Linf(0.002))
        assert not bool((c.certified & attacked.success).any())
        assert method == "ibp" or bool(c.certified.any())
