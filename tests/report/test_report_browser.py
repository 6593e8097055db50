"""report.html in a browser: it sorts, filters and tells tips, by mouse and by keyboard, on paper and in the dark."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.report.document import Report

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(browser: Any, report_folder: Path) -> Any:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get((report_folder / "report.html").as_uri())
    return browser


def _all(driver: Any, selector: str) -> list[Any]:
    from selenium.webdriver.common.by import By

    return list(driver.find_elements(By.CSS_SELECTOR, selector))


def _one(driver: Any, selector: str) -> Any:
    return _all(driver, selector)[0]


def _column(driver: Any, header: str) -> list[str]:
    """The sort values of the rows that are shown, in their order."""
    script = """
        const table = document.getElementById("all-rows");
        const index = [...table.tHead.rows[0].cells].findIndex((head) => head.dataset.key === arguments[0]);
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[index].dataset.value);
    """
    return list(driver.execute_script(script, header))


def _press_keys(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def test_nothing_is_written_to_the_console_and_nothing_is_fetched(opened: Any) -> None:
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_a_header_sorts_numbers_up_and_down_with_what_is_absent_last(opened: Any) -> None:
    head = _one(opened, "th[data-key='p50 ms']")
    button = _one(head, "button")
    button.click()
    up = _column(opened, "p50 ms")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in up[:-2]] == sorted(float(value) for value in up[:-2])
    assert up[-2:] == ["", ""]
    button.click()
    down = _column(opened, "p50 ms")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(value) for value in down[:-2]] == sorted((float(value) for value in down[:-2]), reverse=True)
    assert down[-2:] == ["", ""]


def test_words_sort_by_keyboard_and_one_column_at_a_time(opened: Any) -> None:
    from selenium.webdriver import Keys

    _one(opened, "th[data-key='Batch'] button").click()
    opened.execute_script("document.querySelector(\"th[data-key='Variant'] button\").focus()")
    _press_keys(opened, Keys.ENTER)
    variants = _column(opened, "Variant")
    assert variants == sorted(variants)
    assert variants[0] == "broken"
    assert len(_all(opened, "[aria-sort]")) == 1


def test_filters_narrow_the_rows_and_say_how_many_are_left(opened: Any, full_report: Report) -> None:
    from selenium.webdriver.support.select import Select

    total = len(full_report.rows)
    opened.execute_script("document.querySelector('.filtering').open = true")
    assert _one(opened, "#count").text == f"{total} of {total} rows"
    Select(_one(opened, "select[name=precision]")).select_by_value("int8")
    assert set(_column(opened, "Precision")) == {"int8"}
    _one(opened, "#search").send_keys("channels-50 ONNX")
    left = sum(row.precision == "int8" and row.variant == "channels-50" for row in full_report.rows)
    assert 0 < left == len(_column(opened, "Variant"))
    assert _one(opened, "#count").text == f"{left} of {total} rows"
    assert _one(opened, "#count").get_attribute("role") == "status"
    _one(opened, "button[type=reset]").click()
    opened.execute_async_script("setTimeout(arguments[0], 50)")
    assert len(_column(opened, "Variant")) == total


@pytest.mark.parametrize("figure", ["accuracy-latency", "latency", "batch", "size", "samples", "classes"])
def test_a_point_tells_its_row_to_the_mouse_and_to_the_keyboard(opened: Any, figure: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    marks = _all(opened, f"#{figure} .tip")
    tip = _one(opened, "#tip")
    assert not tip.is_displayed()
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", marks[1])
    ActionChains(opened).move_to_element(marks[1]).perform()
    assert tip.is_displayed()
    assert tip.text in [mark.get_attribute("aria-label") for mark in marks]  # one may lie over another
    _press_keys(opened, Keys.ESCAPE)
    assert not tip.is_displayed()
    opened.execute_script("arguments[0].focus()", marks[0])
    assert tip.text == marks[0].get_attribute("aria-label")
    _press_keys(opened, Keys.ARROW_RIGHT)
    assert tip.text == marks[1].get_attribute("aria-label")
    assert [mark.get_attribute("tabindex") for mark in marks].count("0") == 1


def test_a_tip_stands_inside_the_window(opened: Any) -> None:
    for mark in _all(opened, "#accuracy-latency .tip"):
        opened.execute_script("arguments[0].focus()", mark)
        box = opened.execute_script("return document.getElementById('tip').getBoundingClientRect().toJSON()")
        assert box["left"] >= 0
        assert box["right"] <= opened.execute_script("return innerWidth")


def test_a_phone_shows_each_row_as_a_card_and_scrolls_nothing_sideways(opened: Any) -> None:
    phone = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    opened.refresh()
    assert opened.execute_script("return document.documentElement.scrollWidth") == 375
    assert opened.execute_script("return document.querySelector('#all-rows').parentElement.scrollWidth") <= 375
    first = _one(opened, "#all-rows tbody tr")
    shown = {cell.get_attribute("data-label") for cell in _all(first, "td") if cell.is_displayed()}
    assert {"p50 ms", "drop pp", "MB"} <= shown


def test_1280_pixels_show_every_column_that_decides_and_more_when_asked(opened: Any) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    opened.refresh()
    fits = "const box = document.querySelector('#all-rows').parentElement; return box.scrollWidth <= box.clientWidth"
    assert opened.execute_script(fits)
    assert not _one(opened, "th[data-key='p90 ms']").is_displayed()
    opened.execute_script("document.querySelector('.filtering').open = true")
    _one(opened, "#wide").click()
    assert _one(opened, "th[data-key='p90 ms']").is_displayed()


def test_a_link_to_a_note_opens_the_fold_it_stands_in(opened: Any) -> None:
    assert not _one(opened, "#note-1").is_displayed()
    opened.execute_script("location.hash = 'note-1'")
    opened.execute_async_script("setTimeout(arguments[0], 100)")
    assert _one(opened, "#note-1").is_displayed()


def test_the_dark_page_is_dark_and_so_are_its_figures(opened: Any) -> None:
    shade = "return getComputedStyle(arguments[0]).getPropertyValue(arguments[1])"
    body, chart = _one(opened, "body"), _one(opened, ".chart svg")
    assert opened.execute_script(shade, body, "background-color") == "rgb(255, 255, 255)"
    dark = {"media": "", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert opened.execute_script(shade, body, "background-color") == "rgb(22, 25, 29)"
    assert opened.execute_script(shade, chart, "fill") == "rgb(232, 232, 232)"


def test_paper_shows_what_is_folded_and_leaves_out_what_is_pressed(opened: Any) -> None:
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not _one(opened, "#filters").is_displayed()
    assert _one(opened, "#suite pre").is_displayed()
    opened.execute_script("dispatchEvent(new Event('afterprint'))")
    assert not _one(opened, "#suite pre").is_displayed()


def test_without_a_script_every_number_is_there(opened: Any, full_report: Report) -> None:
    opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened.refresh()
        assert len(_all(opened, "#all-rows tbody tr")) == len(full_report.rows)
        assert not _one(opened, "#filters").is_displayed()
        assert _all(opened, "#accuracy-latency .tip title")
    finally:
        opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
