"""The HTML page in a real browser, opened as a file: it shows, sorts, saves, prints and reads well.

Needs Chromium and its driver (Debian: apt-get install chromium chromium-driver).
"""

from __future__ import annotations

import base64
import math
import os
import re
import shutil
import time

import pytest
from helpers.page_example import COLUMNS, CONTENT, FILES, ROWS

from lrpjax.report.page import LEVELS, page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage"
)
WAIT = 20  # seconds, for what a busy machine may take long to do
CONTRAST = 4.5  # of text, WCAG 2.2, level AA
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}

missing = [name for name, path in (("chromium", BROWSER), ("chromedriver", DRIVER)) if not path]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing),
        reason=f"no {' and no '.join(missing)}: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, Service(DRIVER))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "audit.html"
    file.write_text(page(**CONTENT), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def browser(driver, address):
    """The page, newly opened at 1280 x 900, light."""
    command(driver, "Emulation.setDeviceMetricsOverride", **SCREEN)
    media(driver)
    driver.get(address)
    driver.get_log("browser")  # of the page before
    return driver


SCREEN = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}


def command(driver, name, **parameters):
    return driver.execute_cdp_cmd(name, parameters)


def media(driver, scheme="light", kind=""):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    command(driver, "Emulation.setEmulatedMedia", media=kind, features=features)


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def wait_for(condition, what):
    end = time.monotonic() + WAIT
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def test_it_opens_without_a_complaint_and_no_text_runs(driver, browser, address):
    browser.get(address)
    wait_for(lambda: browser.execute_script("return document.readyState") == "complete", "the page")
    assert browser.execute_script("return window.broken === undefined")
    assert browser.get_log("browser") == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_the_policy_stops_other_scripts(browser):
    """What gets past the escaping would be stopped here; and complaints do reach the console."""
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.broken = 1';"
        "document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken = 1\">')"
    )
    log = wait_for(lambda: browser.get_log("browser"), "the console")
    assert "Content Security Policy" in log[0]["message"]
    assert browser.execute_script("return window.broken === undefined")


def test_all_pictures_are_shown(browser):
    sizes = browser.execute_script(
        "return [...document.images].map((i) => [i.complete, i.naturalWidth, i.clientWidth])"
    )
    assert len(sizes) == 3
    assert all(complete and natural > 0 and shown > 0 for complete, natural, shown in sizes)


# Sorting


def shown(browser):
    """The methods, as the summary lists them from top to bottom."""
    return [cell.get_property("textContent") for cell in find(browser, "#table-0 tbody th")]


def sort_key(column, row):
    """None for what comes last."""
    given = row[column.field]
    if column.kind == "verdict":
        return LEVELS.index(given["level"])
    value = given[0] if isinstance(given, tuple) else given
    if column.kind == "number":
        return value if isinstance(value, int | float) and not math.isnan(value) else None
    if value is None:
        return None
    # Punctuation sorts before digits, numbers in a name by value, letters without their case.
    pieces = re.findall(r"\d+|\D", value.casefold())
    return [(0, "", int(p)) if p.isdigit() else (p.isalpha(), p, 0) for p in pieces]


def expected(column, descending):
    keys = {row["method"]: sort_key(column, row) for row in ROWS}
    known = [method for method, key in keys.items() if key is not None]
    known.sort(key=keys.__getitem__, reverse=descending)  # stable both ways, as in the page
    return known + [method for method, key in keys.items() if key is None]


@pytest.mark.parametrize("number", range(len(COLUMNS)), ids=[c.field for c in COLUMNS])
def test_every_column_sorts_both_ways(browser, number):
    column = COLUMNS[number]
    assert shown(browser) == [row["method"] for row in ROWS]
    find(browser, "#table-0 button.sort")[(number + 1) % len(COLUMNS)].click()  # another first
    headings = find(browser, "#table-0 thead th")
    orders = {}
    for direction in ("ascending", "descending", "ascending"):
        find(browser, "#table-0 button.sort")[number].click()
        orders[direction] = shown(browser)
        assert orders[direction] == expected(column, direction == "descending")
        states = [heading.get_attribute("aria-sort") for heading in headings]
        assert states == [direction if i == number else "none" for i in range(len(COLUMNS))]
    assert orders["ascending"] != orders["descending"]
    assert [cell.text for cell in find(browser, "#table-1 tbody th")] == [
        row["method"] for row in ROWS[:2]
    ], "other tables stay as they are"


def test_the_keyboard_sorts(browser):
    from selenium.webdriver.common.keys import Keys

    button = find(browser, "#table-0 button.sort")[3]
    for key, descending in ((Keys.ENTER, False), (Keys.SPACE, True)):
        button.send_keys(key)
        assert shown(browser) == expected(COLUMNS[3], descending)


# Hints, copying, saving


@pytest.mark.parametrize("screen", [SCREEN, PHONE], ids=["desk", "phone"])
def test_a_hint_opens_inside_the_window_and_closes(browser, screen):
    from selenium.webdriver.common.keys import Keys

    command(browser, "Emulation.setDeviceMetricsOverride", **screen)
    for button in find(browser, "#table-0 button.hint"):
        tip = find(browser, "#" + button.get_attribute("popovertarget"))[0]
        assert not tip.is_displayed()
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        time.sleep(0.1)  # scrolling closes hints
        button.send_keys(Keys.ENTER)
        wait_for(tip.is_displayed, "the hint")
        box = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", tip)
        assert box["left"] >= 0 and box["right"] <= screen["width"]
        assert box["top"] >= 0 and box["bottom"] <= screen["height"]
        button.send_keys(Keys.ESCAPE)
        wait_for(lambda tip=tip: not tip.is_displayed(), "the hint to close")


def test_a_hint_follows_the_mouse(browser):
    from selenium.webdriver import ActionChains

    heading = find(browser, "#table-0 thead th")[3]
    tip = find(browser, "#hint-0-4")[0]
    ActionChains(browser).move_to_element(heading).perform()
    wait_for(tip.is_displayed, "the hint")
    ActionChains(browser).move_to_element(find(browser, "h1")[0]).perform()
    wait_for(lambda: not tip.is_displayed(), "the hint to close")


@pytest.mark.parametrize("allowed", [True, False])
def test_the_command_is_copied(browser, allowed):
    permission = {"name": "clipboard-write"}
    setting = "granted" if allowed else "denied"
    command(browser, "Browser.setPermission", permission=permission, setting=setting)
    command(browser, "Browser.setPermission", permission={"name": "clipboard-read"},
            setting="granted")  # fmt: skip
    button = find(browser, "button.copy")[0]
    button.click()
    wait_for(lambda: button.text == "Copied", "the button to say so")
    read = "navigator.clipboard.readText().then(arguments[0], (e) => arguments[0](String(e)))"
    assert browser.execute_async_script(read) == CONTENT["reproduce"]
    assert browser.get_log("browser") == []


def test_the_files_are_saved_as_they_were(browser, tmp_path):
    command(browser, "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for link in find(browser, "a[download]"):
        link.click()
        file = tmp_path / link.text
        content = FILES[link.text].encode()
        wait_for(lambda f=file, c=content: f.exists() and f.stat().st_size == len(c), link.text)
        assert file.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)


# Screens, colours, paper


def test_a_phone_scrolls_tables_and_figures_but_not_the_page(browser):
    command(browser, "Emulation.setDeviceMetricsOverride", **PHONE)
    assert browser.execute_script("return innerWidth") == PHONE["width"]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"]
    name, frame = find(browser, "#table-0 tbody th")[0], find(browser, ".scroll")[0]
    left = "return arguments[0].getBoundingClientRect().left"
    before = browser.execute_script(left, name)
    number = find(browser, "#table-0 tbody td")[-1]
    assert browser.execute_script(left, number) > PHONE["width"]
    browser.execute_script("arguments[0].scrollLeft = 10000", frame)
    assert browser.execute_script(left, number) < PHONE["width"]
    assert browser.execute_script(left, name) == before, "the first column stays"
    wide = browser.execute_script("return document.images[0].clientWidth")
    assert wide == pytest.approx(864 * 0.667, abs=1), "letters stay legible"


READ_COLOURS = """
const open = document.querySelector(".tip");
if (open) open.showPopover();
const opaque = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return null;
};
const texts = [...document.querySelectorAll("body *:not(script)")].filter((e) =>
  e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
return texts.map((e) => [e.outerHTML.slice(0, 80), getComputedStyle(e).color, opaque(e)]);
"""


def luminance(colour):
    """Relative luminance of `rgb(r, g, b)`, WCAG 2.2."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, f"{colour} is not opaque"
    channels = [int(c) / 255 for c in found.groups()]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(browser, scheme):
    media(browser, scheme)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert luminance(paper) < 0.05 if scheme == "dark" else luminance(paper) > 0.9
    texts = browser.execute_script(READ_COLOURS)
    assert len(texts) > 100
    for element, colour, behind in texts:
        dark, light = sorted((luminance(colour), luminance(behind)))
        assert (light + 0.05) / (dark + 0.05) >= CONTRAST, (element, colour, behind)


def test_on_paper_there_are_no_buttons_and_nothing_is_cut(browser):
    media(browser, "dark", "print")
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    looks = lambda selector, name: browser.execute_script(style, selector, name)
    assert luminance(looks("body", "backgroundColor")) == 1, "paper is white"
    for selector in ("nav", ".copy", ".hint"):
        assert looks(selector, "display") == "none"
    assert looks("figure", "breakInside") == looks("tr", "breakInside") == "avoid"
    assert looks("thead", "display") == "table-header-group"
    assert {frame.value_of_css_property("overflow-x") for frame in find(browser, ".scroll")} == {
        "visible"
    }
    command(browser, "Emulation.setDeviceMetricsOverride", **{**SCREEN, "width": 688})  # 182 mm
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 688


def test_the_page_is_printed_to_pdf(browser):
    pdf = command(browser, "Page.printToPDF", preferCSSPageSize=True)["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF-")


def test_without_scripts_all_can_be_read(browser, address):
    command(browser, "Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.get(address)
        assert not find(browser, "html.scripted")
        assert shown(browser) == [row["method"] for row in ROWS]
        assert not find(browser, "button.copy")[0].is_displayed()
        find(browser, "#table-0 button.hint")[0].click()
        assert find(browser, "#hint-0-2")[0].is_displayed()
    finally:
        command(browser, "Emulation.setScriptExecutionDisabled", value=False)
