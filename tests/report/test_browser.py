"""The page in a real browser, offline: no error, nothing requested, nothing sticks out."""

import shutil

import pytest
from tests.report.synthetic import gallery, ledger
from tests.report.test_smoothed import run

from certus.report import report_data, write_report

SECTIONS = ("headline", "curves", "table", "gallery", "sandwich", "reproducibility", "methods")
CUT = """[...document.querySelectorAll('svg.chart text')].filter(t => {
    const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
    return a.left < b.left || a.right > b.right || a.top < b.top - 1 || a.bottom > b.bottom + 1;
}).map(t => t.textContent)"""

HIDDEN = """[...document.querySelectorAll('.scroll')].filter(t => t.scrollWidth > t.clientWidth).map(
    t => `${t.ariaLabel}: ${t.scrollWidth} in ${t.clientWidth}`)"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rows, runs = ledger(("standard", "a-rather-long-model-name/from_a_folder_2024"), n=12)
    data = report_data(rows, runs, gallery=gallery(), reproducibility={"command": "certus " * 30})
    return write_report(tmp_path_factory.mktemp("report") / "report.html", data)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def smoothed(tmp_path_factory):
    radii = [1.9 * i / 40 for i in range(40)]
    noises = [f"Gaussian(sigma={s})" for s in (0.12, 0.25, 0.5, 1.0, 2.0, 4.0)]
    rows = [row for noise in noises for row in run(noise, radii, noise=noise)]
    path = tmp_path_factory.mktemp("smoothed") / "report.html"
    return write_report(path, report_data(rows, reproducibility={"command": "certus " * 30}))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_page_in_a_browser(browser, path, width, scheme):
    visit(browser, path, width, scheme, SECTIONS)


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "dark"), (1200, "light"), (800, "light"), (390, "light")]
)
def test_page_of_smoothing_in_a_browser(browser, smoothed, width, scheme):
    visit(browser, smoothed, width, scheme, ("headline", "smoothed", "reproducibility"))


def visit(browser, path, width, scheme, sections):
    """Open the page and look for anything that is wrong with it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, wrong, asked = context.new_page(), [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert wrong == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    for name in sections:
        assert page.locator(f"#{name}").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "with details open"
    if width >= 800:
        assert page.evaluate(HIDDEN) == [], "columns of a table lie beyond its edge"
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg.chart text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 8, "text of a chart is too small to read"
    assert page.evaluate(CUT) == [], "text of a chart is cut off"
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(20, 24, 30)" if scheme == "dark" else "rgb(255, 255, 255)")
    context.close()
