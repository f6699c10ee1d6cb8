"""Citations: what was used names its papers, by exact names; everything that is offered names some."""

import pytest
from tests.report.synthetic import ledger

from certus.api import ATTACKS
from certus.certifiers import CERTIFIERS
from certus.evaluation.spelling import HASHED, NOISES
from certus.report.citations import cited, papers, used
from certus.training import RECIPES


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("crown-ibp", ["zhang2020crownibp"]),
        ("ibp", ["gowal2018ibp"]),
        ("crown", ["zhang2018crown"]),
        ("alpha-crown", ["xu2021alphacrown"]),
        ("sdp-crown", ["chiu2025sdpcrown"]),
        ("gaussian", ["cohen2019smoothing"]),
        ("my-crown", []),
        ("lipschitz", ["tsuzuku2018lipschitz", "leino2021gloro"]),
        ("smoothing", ["cohen2019smoothing"]),
        ("milp", ["tjeng2019milp"]),
        ("pgd", ["madry2018pgd"]),
        ("fgsm", ["goodfellow2015fgsm"]),
        ("standard", []),
    ],
)
def test_citations_follow_what_was_used(name, keys):
    assert [paper.key for paper in cited([name, name])] == keys


def test_everything_that_is_offered_names_its_papers():
    known = {name for paper in papers() for name in paper.of}
    offered = {*CERTIFIERS, *ATTACKS, "smoothed-pgd", *RECIPES, *NOISES, *HASHED} - {"standard"}
    assert offered <= known
    assert known - offered == {"InputDependent"}


def test_a_report_cites_methods_noises_and_recipes():
    smoothed = [r for r in ledger(("one",), n=2)[0] if r["method"] == "smoothing"]
    noise = '{"kind":"Smoothed","noise":{"kind":"Uniform","half_width":0.5}}'
    names = used(
        [r | {"subject": noise, "method": "smoothing n=7"} for r in smoothed], [{"recipe": "macer"}]
    )
    keys = {paper.key for paper in cited(names)}
    assert keys == {"cohen2019smoothing", "yang2020shapes", "lee2019tight", "zhai2020macer"}
