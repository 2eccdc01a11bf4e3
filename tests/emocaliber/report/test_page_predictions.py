"""The page of predictions without a truth: what is in it, and what a browser makes of it."""

import json
import re

import pytest
from PIL import Image

from emocaliber.records import RECORD_INVALID
from emocaliber.report.page import MOST_ROWS, prediction_row, write_prediction_page
from emocaliber.response import SECTIONS

LABELS = ["awe", "fear", "joy"]
ANSWERS = {"a": ("joy", "0.9"), "b": ("fear", "0.35"), "c": ("joy", "0.6"), "d": (None, None)}


def record(identity, label, confidence):
    steps = "".join(f"<{name}>{name} of {identity}</{name}>" for name in SECTIONS)
    answer = "" if label is None else f"<answer>{label}</answer><confidence>{confidence}</confidence>"
    row = {"id": f"{identity}.png", "image": f"{identity}.png", "task": "own images", "candidates": LABELS}
    return {**row, "response": f"<think>{steps}</think>{answer}"}


def failed(identity, type, **fields):
    return {"id": identity, "task": "own images", "error": {"type": type, "message": "why"}, **fields}


RECORDS = [
    *(record(identity, *answer) for identity, answer in ANSWERS.items()),
    failed("e.png", "image_unreadable", image="e.png", candidates=LABELS),
    failed("line-6", RECORD_INVALID),
]


def content_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="content">(.*?)</script', text, re.S)[1]), text


@pytest.fixture
def page_file(tmp_path):
    for number, identity in enumerate(ANSWERS):
        Image.new("RGB", (400, 200), (60 * number, 100, 30)).save(tmp_path / f"{identity}.png")
    path = tmp_path / "report.html"
    write_prediction_page(path, RECORDS, title="my images", image_root=tmp_path, facts={"checkpoint": "mini"})
    return path


def test_rows_are_read_from_the_response_and_no_truth_is_looked_for():
    row = prediction_row({**RECORDS[0], "ground_truth": "fear"})
    assert (row["label"], float(row["confidence"]), row["status"]) == ("joy", 0.9, "answered")
    assert row["truth"] is None
    assert prediction_row(RECORDS[3])["label_reason"] == "no_answer"
    assert prediction_row(RECORDS[4])["error"] == "image_unreadable: why"
    assert (prediction_row(RECORDS[5])["status"], prediction_row(RECORDS[5])["image"]) == ("failed", None)


def test_the_page_holds_the_rows_and_none_of_the_numbers(page_file):
    content, text = content_of(page_file)
    assert content["overall"]["samples"] == {"n": 6, "answered": 3, "unparsed": 1, "failed": 2}
    assert [row["label"] for row in content["rows"]] == ["joy", "fear", "joy", None, None, None]
    assert [row["thumbnail"] for row in content["rows"]] == [0, 1, 2, 3, None, None]
    assert content["facts"] == [["checkpoint", "mini"]]
    for part in (
        'id="scores"',
        'id="reliability"',
        'id="confusion"',
        'id="accounting"',
        "#scores",
        "numbers -->",
    ):
        assert part not in text
    assert 'id="samples"' in text and "Content-Security-Policy" in text


def test_of_too_many_rows_the_first_are_shown_and_the_page_says_so(tmp_path):
    rows = [failed(str(number), "image_missing") for number in range(MOST_ROWS + 5)]
    write_prediction_page(tmp_path / "page.html", rows, title="many", image_root=None)
    content, _ = content_of(tmp_path / "page.html")
    assert len(content["rows"]) == MOST_ROWS
    assert content["warnings"] == ["Only the first 20,000 of 20,005 rows are on this page."]


def listed(page):
    return page.eval_on_selector_all(".line .which", "all => all.map((one) => one.textContent)")


@pytest.mark.slow
def test_a_browser_lists_filters_and_sorts(opened, page_file):
    page = opened()
    assert page.locator("h1").text_content() == "my images"
    assert page.locator(".equation").text_content() == "6 rows = 3 answered + 1 unparsed + 2 failed"
    assert listed(page) == ["a.png", "b.png", "c.png", "d.png", "e.png", "line-6"]
    assert page.locator(".line img").count() == 4
    assert page.locator("#card .steps p").all_text_contents() == [f"{name} of a" for name in SECTIONS]
    assert page.locator("#card dt").all_text_contents() == ["Answer", "Confidence", "Task", "Id", "Image"]
    size = page.locator("#card img").evaluate("one => [one.naturalWidth, one.naturalHeight]")
    assert size == [256, 128]
    page.select_option("#sort", label="confidence, low to high")
    assert listed(page)[:3] == ["b.png", "c.png", "a.png"]
    page.select_option("#filter-label", label="joy (2)")
    assert listed(page) == ["c.png", "a.png"]
    assert page.locator("#found").text_content() == "2 of 6 rows · mean confidence 75.00 %"
    page.locator("#reset").click()
    page.select_option("#filter-label", label="none (3)")
    assert listed(page) == ["d.png", "e.png", "line-6"]
    page.locator("#reset").click()
    page.fill("#search", "context of b")
    assert listed(page) == ["b.png"]


@pytest.mark.slow
def test_a_browser_shows_the_errors(opened, page_file):
    page = opened()
    chips = page.locator("#outcomes .chip").all_text_contents()
    assert chips == ["all6", "answered3", "? unparsed1", "! failed2"]
    page.locator("[data-outcome=failed]").click()
    assert page.locator(".line .answer").all_text_contents() == ["image_unreadable", "record_invalid"]
    assert page.locator("#card .error").text_content() == "image_unreadable: why"
    page.keyboard.press("j")
    assert page.locator("#card .error").text_content() == "record_invalid: why"
