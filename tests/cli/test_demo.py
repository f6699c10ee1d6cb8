"""The demo as a whole: minutes long, so it runs with the slow tests."""

import shutil
from pathlib import Path

import pytest
from tests.cli.helpers import rows_of, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    assert run("demo", "--out", out) == 0
    return out


def test_the_demo_ends_in_a_report_and_its_numbers_hold(demo):
    assert (demo / "report.html").stat().st_size > 50_000
    rows = rows_of(demo / "rows.csv")
    ibp = [r for r in rows if (r["model"], r["method"], r["eps"]) == ("ibp", "ibp", 0.1)]
    assert len(ibp) == 450
    assert sum(r["prediction"] == r["label"] for r in ibp) >= 0.96 * 450
    assert sum(r["verdict"] == "verified" for r in ibp) >= 0.82 * 450


def test_no_certificate_of_the_demo_is_broken_by_its_attack(demo):
    rows = rows_of(demo / "rows.csv")
    smooth = ("smoothing", "smoothed-pgd")
    broken: dict[tuple, float] = {}
    for r in rows:
        if r["method"].endswith("pgd") and r["verdict"] == "falsified":
            key = (r["model"], r["norm"], r["index"], r["method"] in smooth)
            eps = 0.0 if r["reason"] == "misclassified" else r["eps"]
            broken[key] = min(eps, broken.get(key, eps))
    proven = [
        r for r in rows if r["verdict"] == "verified" or (r["eps"] is None and r["radius"] > 0)
    ]
    assert {r["verdict"] for r in rows if r["eps"] is None} == {""}
    assert len(proven) > 1000 and len(broken) > 100
    for r in proven:
        key = (r["model"], r["norm"], r["index"], r["method"] in smooth)
        assert r["radius"] < broken.get(key, float("inf")) or r["radius"] == 0, r


def test_a_second_demo_computes_nothing(demo, capsys):
    before = (demo / "rows.csv").read_bytes()
    assert run("demo", "--out", demo) == 0
    assert (demo / "rows.csv").read_bytes() == before
    assert run("demo", "--out", demo, "--seed", 1) == 2
    assert "seed 0" in capsys.readouterr().err


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_in_a_browser(demo, width):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True
        ).new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto((demo / "report.html").as_uri())
        assert wrong == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#headline").is_visible()
        browser.close()
