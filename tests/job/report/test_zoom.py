"""The page in a browser: curves of some of the steps, by mouse, keyboard and finger."""

from collections.abc import Iterator

import pytest
from support.browser import Browser, browser
from support.report_samples import causal_curve, causal_report, stepwise

from lmft_api.wire.report import SampleOutcome
from lmft_job.report.page import render_page

HOSTILE = "<script>alert(1)</script>\"' onload=x \x1b[31m\u202e <img src=http://192.0.2.1/x> </style></title></svg>"
STEPS = "document.querySelector('.readout').textContent"
BUTTONS = "[...document.querySelectorAll('.reset')].filter(button => !button.hidden).length"
PLACE = """(() => {
  const chart = [...document.querySelectorAll('.chart')].find(one => one.getBoundingClientRect().width);
  chart.scrollIntoView({block: "center", behavior: "instant"});
  chart.focus();
  const box = chart.getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
})()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    report = causal_report()
    samples = [SampleOutcome(prompt=HOSTILE, before=HOSTILE, after=HOSTILE)]
    hostile = {"name": HOSTILE, "results": report.results.model_copy(update={"samples": samples})}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(render_page(report.model_copy(update=hostile), stepwise(causal_curve())))
    return path.as_uri()


def place(tab: Browser, share: float) -> tuple[float, float]:
    """A point in the first curve that is shown, by the share of its width."""
    left, top, width, height = tab.value(PLACE)
    return left + width * share, top + height / 2


def zoomed(tab: Browser) -> tuple[str, int, int]:
    """What the first curve says, how many are zoomed of those in the page, and how many buttons are shown."""
    charts = tab.value("document.querySelectorAll('.chart .window').length")
    return tab.value(STEPS), charts, tab.value(BUTTONS)


def test_a_drag_zooms_all_curves_and_a_double_click_the_button_or_escape_shows_all_again(
    tab: Browser, address: str
) -> None:
    tab.open(address)
    before = zoomed(tab)

    tab.drag(place(tab, 0.25), place(tab, 0.5))
    dragged = zoomed(tab)
    drawn = tab.value("document.querySelector('.chart .window path.line').getAttribute('d')")
    tab.double_click(place(tab, 0.4))
    all_again = zoomed(tab)
    tab.drag(place(tab, 0.6), place(tab, 0.3))
    backwards = zoomed(tab)
    tab.value("document.querySelector('.reset').click()")
    by_button = zoomed(tab)
    focused = tab.value("document.activeElement.classList.contains('chart')")

    assert before == all_again == by_button == ("", 0, 0)
    assert dragged[1:] == (8, 4)  # in two sizes each
    first, last = [int(word) for word in dragged[0].split() if word.isdigit()]
    assert 0.2 * 1_740 < first < 0.25 * 1_740
    assert 0.45 * 1_740 < last < 0.5 * 1_740
    assert drawn.count("L") > 40
    assert backwards[0].startswith("steps 4")
    assert focused
    assert tab.said == []
    assert {one for one in tab.asked if one not in (address, "about:blank")} == set()


def test_keys_zoom_around_the_chosen_step_and_the_address_keeps_the_steps(tab: Browser, address: str) -> None:
    tab.open(address)
    place(tab, 0.5)

    for key in ("End", "+", "+"):
        tab.press(key, key if len(key) == 1 else "")
    near_the_end = tab.value(STEPS)
    fragment = tab.value("location.hash")
    tab.press("ArrowRight")
    read = tab.value(STEPS)
    tab.open(f"{address}{fragment}")
    kept = zoomed(tab)
    place(tab, 0.5)
    tab.press("Escape")

    assert near_the_end.startswith("steps 1,")
    assert near_the_end.endswith("to 1,740")
    assert read.startswith("step 1,")
    assert "training loss" in read
    assert kept == (near_the_end, 8, 4)
    assert zoomed(tab) == ("", 0, 0)
    assert tab.value("location.hash") == ""


@pytest.mark.parametrize("fragment", ["#steps=9-3", "#steps=5-5", "#steps=999999999999-999999999999", "#steps=-1-2"])
def test_an_address_with_other_steps_is_a_page_nonetheless(tab: Browser, address: str, fragment: str) -> None:
    tab.open(f"{address}{fragment}")

    assert tab.value("document.querySelectorAll('.chart [d*=NaN], .chart [d*=Infinity]').length") == 0
    assert tab.said == []


def test_a_finger_zooms_on_a_phone_where_nothing_is_wider_than_the_screen(tab: Browser, address: str) -> None:
    tab.open(address, width=390, phone=True)

    tab.swipe(place(tab, 0.3), place(tab, 0.7))

    steps, charts, buttons = zoomed(tab)
    assert steps.startswith("steps ")
    assert (charts, buttons) == (8, 4)
    assert tab.value("document.documentElement.scrollWidth") <= 390
