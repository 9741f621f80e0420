"""The page in a real Chromium, without a network: it asks for nothing and complains of nothing."""

import os
import shutil
from importlib.util import find_spec

import pytest
from studying import HOSTILE, hostile_rows, study_of, usual_rows

from probe.report.formats.write import write as write_page
from probe.report.study import document
from probe.report.study.parts import Figure

pytestmark = pytest.mark.browser
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    lacking = [name for name in ("playwright", "plotly") if not find_spec(name)]
    lacking += [] if program else ["Chromium"]
    if lacking:
        said = f"{', '.join(lacking)} isn't here"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_of(usual_rows(), tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def file(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "study.html"
    path.write_text(document.write(study), encoding="utf-8")
    return path


class Visited:
    """A page that is open, and what it complained of or asked for."""

    def __init__(self, browser, file, **facts):
        self.wrong = []
        self.page = browser.new_context(viewport=DESKTOP, offline=True, **facts).new_page()
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", self._note)
        self.page.goto(file.as_uri())

    def _dismiss(self, dialog):
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def _note(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(request.url)


@pytest.fixture(scope="module")
def visited(browser, file):
    return Visited(browser, file)


@pytest.fixture
def page(visited):
    """The page, as a desktop shows it by day; whatever it complains of fails the test."""
    visited.page.set_viewport_size(DESKTOP)
    visited.page.emulate_media(color_scheme="light")
    visited.page.evaluate("delete document.documentElement.dataset.scheme")
    yield visited.page
    assert visited.wrong == []


def draw(page, name):
    """Scroll to a figure and wait for its plots."""
    figure = page.locator(f"#figure-{name}")
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()
    return figure


def test_a_plot_is_drawn_when_it_comes_into_view_and_says_its_numbers(page, study):
    assert page.locator(".main-svg").count() == 0
    figure = draw(page, "layers")
    point = figure.locator(".points path").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    said = page.locator(".hovertext")
    said.first.wait_for()
    frame = next(
        b.frame for s in study.sections for b in s.blocks if isinstance(b, Figure) and b.name == "layers"
    )  # fmt: skip
    assert any(f"{mark.value:.3f}" in said.first.text_content() for mark in frame.points)
    with page.expect_download() as download:
        figure.locator(".csv").click()
    assert download.value.path().read_text() == write_page(frame.page(), "csv")


def test_a_table_sorts_and_filters(page):
    table = page.locator("#rows table").last
    heading = table.locator("thead th", has_text="auc")
    cells = table.locator(f"tbody tr > :nth-child({1 + index_of(heading)})")
    heading.click()
    rising = numbers(cells)
    assert len(rising) > 8
    assert rising == sorted(rising)
    heading.focus()
    page.keyboard.press("Enter")
    assert numbers(cells) == sorted(rising, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    box = page.locator("#rows input[type=search]").last
    box.fill("vit ridge")
    shown = table.locator("tbody tr:visible")
    assert shown.count() == 1
    assert "ridge" in shown.text_content()
    box.fill("")
    assert shown.count() == len(rising)


def index_of(heading):
    return heading.evaluate("of => of.cellIndex")


def numbers(cells):
    return [float(text.split()[0].strip("*")) for text in cells.all_text_contents() if text.strip()]


def test_dark_is_dark_and_a_button_turns_it(page):
    draw(page, "layers")
    page.emulate_media(color_scheme="dark")

    def ground():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    def tick():
        return page.locator("#figure-layers .xtick text").first.evaluate("of => of.style.fill")

    assert sum(map(int, ground().strip("rgb()").split(","))) < 150
    dark = tick()
    page.locator("#scheme").click()
    assert ground() == "rgb(255, 255, 255)"
    assert tick() != dark


def test_a_phone_scrolls_down_alone(page):
    page.set_viewport_size(PHONE)
    draw(page, "confusion")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("nav details").get_attribute("open") is None
    box = page.locator("#figure-confusion .plot").first.bounding_box()
    assert box["x"] + box["width"] <= PHONE["width"]


def test_paper_is_light_and_its_plots_are_as_wide_as_a_panel_there(page):
    figure = draw(page, "layers")

    def look():
        return figure.locator(".xtick text").first.evaluate("of => of.style.fill")

    def becomes(is_so):
        for _ in range(100):  # plots are drawn anew a moment later
            if is_so():
                return True
            page.wait_for_timeout(50)
        return False

    light = look()
    page.emulate_media(color_scheme="dark")
    assert becomes(lambda: look() != light)
    dark = look()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert becomes(lambda: look() == light)
    assert becomes(lambda: figure.locator(".main-svg").first.bounding_box()["width"] == 310)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert becomes(lambda: look() == dark)


def test_hostile_names_are_shown_and_do_nothing(browser, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(document.write(study_of(hostile_rows(), tmp_path, title=HOSTILE[1])))
    visited = Visited(browser, path)
    assert visited.page.title() == HOSTILE[1]
    for name in ("layers", "confusion"):
        draw(visited.page, name)
    assert visited.page.locator("img").count() == 0
    assert visited.wrong == []


def test_without_scripts_tables_are_there(browser, file):
    page = Visited(browser, file, java_script_enabled=False).page
    assert page.locator("#first table tbody tr").first.is_visible()
    assert page.locator("noscript").first.is_visible()
