"""report.html as a file: what is in it, what is not, and that no text of the data gets out of its place."""

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emocaliber.records import RECORD_INVALID, read_records
from emocaliber.report.page import (
    page_row,
    prediction_row,
    thumbnails_of,
    write_page,
    write_prediction_page,
)
from emocaliber.response import SECTIONS, parse
from emocaliber.scoring import score

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "merged.jsonl"
HOSTILE = (
    "</script><script>window.__pwned = 1</script>",
    "<!-- <script>",
    "<img src=x onerror=alert(1)>",
    "]]>&lt;&amp;",
    "javascript:alert(1)",
    "line\u2028end\u2029",
    "\x00\x1b[31m",
    "\ud800 alone",
    "@@script@@ @@content@@",
    "\\u003c\\",
    "__proto__",
)


def golden_rows():
    records = read_records(GOLDEN)
    return [page_row(score(record), record) for record in records]


def written(path, metrics, rows, title="run", image_root=None):
    write_page(path, metrics, rows, title=title, image_root=image_root)
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the texts of its scripts."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.scripts = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


def blocks(page):
    """The two blocks of JSON, as a browser finds them: up to the first end of a script."""
    return [
        json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script', page, re.S)[1])
        for name in ("content", "thumbnails")
    ]


def test_what_is_in_the_rows_comes_back(tmp_path):
    content, thumbnails = blocks(written(tmp_path / "report.html", {}, golden_rows()))
    rows = {row["id"]: row for row in content["rows"]}
    for record in read_records(GOLDEN):
        row, scored = rows[record["id"]], score(record)
        assert (row["label"], row["truth"], row["status"]) == (scored.label, scored.truth, scored.status)
        assert row["confidence"] == (None if scored.confidence is None else float(scored.confidence))
        assert content["candidate_sets"][row["candidates"]] == list(scored.candidates)
        assert row["response"] == record.get("response")
    assert [row["error"] for row in content["rows"] if row["status"] == "failed"] == [
        "ImageError: images/7.jpg: not an image"
    ]
    assert thumbnails == []


def test_several_confidences_are_a_table_and_no_fact(tmp_path):
    scores = {"acc": 0.5, "ece": 0.2, "intervals": {"ece": [0.1, 0.3]}}
    one = {"n": 4, "ranks_best": None, "confidences": {"stated": scores, "p_true": scores}}
    compared = {"n_rows": 4, "overall": one, "groups": {"OOD VER": one}, "tasks": {"Abstract-8": one}}
    content, _ = blocks(written(tmp_path / "report.html", {"confidences": compared, "seed": 3}, []))
    assert content["facts"] == [["seed", "3"]]
    assert [(rows["kind"], rows["name"], rows["n"]) for rows in content["confidences"]] == [
        ("task", "Abstract-8", 4),
        ("group", "OOD VER", 4),
        ("overall", "Overall", 4),
    ]
    assert content["confidences"][2]["confidences"] == [
        {"title": "stated", "samples": scores},
        {"title": "P(True)", "samples": scores},
    ]
    assert blocks(written(tmp_path / "report.html", {}, []))[0]["confidences"] == []


def test_the_steps_are_cut_out_of_the_response_in_utf16(tmp_path):
    steps = [f"{name} \U0001f600 \ud83d" for name in SECTIONS]
    text = "<think>" + "".join(f"<{n}>{s}</{n}>" for n, s in zip(SECTIONS, steps, strict=True)) + "</think>"
    text = "\U0001f30a" + text
    [row] = blocks(written(tmp_path / "report.html", {}, [{"response": text}]))[0]["rows"]
    units = row["response"].encode("utf-16-le", "surrogatepass")
    cut = [units[2 * start : 2 * end].decode("utf-16-le", "surrogatepass") for start, end in row["steps"]]
    assert cut == list(parse(text, []).reasoning.values()) == steps


def test_a_missing_step_is_null(tmp_path):
    text = "<think><element>a hill</element><analysis>calm</analysis></think><answer>joy</answer>"
    [row] = blocks(written(tmp_path / "report.html", {}, [{"response": text, "candidates": ["joy"]}]))[0][
        "rows"
    ]
    assert [place is None for place in row["steps"]] == [False, True, True, True, False]


def test_the_page_needs_nothing_from_outside(tmp_path):
    page = written(tmp_path / "report.html", {}, [])
    assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]", page, re.I)
    assert "@import" not in page and "url(" not in page
    for tag, attributes in Elements(page).found:
        assert attributes.get("href", "#").startswith(("#", "data:")), tag
        assert not {"src", "srcset", "action", "style"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")], tag


def test_the_policy_allows_this_script_and_this_style_only(tmp_path):
    page = written(tmp_path / "report.html", {}, golden_rows())
    [policy] = [a["content"] for tag, a in Elements(page).found if "http-equiv" in a]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    [script] = re.findall(r"<script>(.*?)</script>", page, re.S)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.S)
    for rule, text in (("script-src", script), ("style-src", style)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    assert "unsafe" not in policy


def test_the_script_never_makes_markup_of_text():
    folder = resources.files("emocaliber.report") / "page_assets"
    sources = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    assert sum(name.endswith(".js") for name in sources) == 7
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|srcdoc|setHTML"
    assert not [name for name, text in sources.items() if re.search(sinks, text)]
    assert not [
        name for name, text in sources.items() if name.endswith(".js") and re.search(r"</|<!--", text)
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_where_it_is(tmp_path, text):
    row = dict.fromkeys(("id", "task", "truth", "label", "image", "response", "error", "status"), text)
    row |= {"candidates": [text], "flags": [text], "label_reason": text, "posterior": {text: 1.0}}
    summary = {"n": 1, "flags": {text: 1}, "confusion": {"labels": [text], "counts": [[1, 0]]}}
    metrics = {"predictions": [text], "warnings": [text], "tasks": {text: summary}, text: text}
    page = written(tmp_path / "report.html", metrics, [row], title=text, image_root=tmp_path)
    plain = written(tmp_path / "plain.html", {"predictions": [""], "": ""}, [], title="")
    # No element more than in a page without it.
    names = [[tag for tag, _ in Elements(one).found] for one in (page, plain)]
    assert names[0] == names[1]
    content, thumbnails = blocks(page)
    [kept] = content["rows"]
    assert all(kept[name] == text for name in ("id", "task", "label", "response", "error"))
    assert content["tasks"][0]["name"] == text and content["warnings"] == [text]
    assert content["candidate_sets"] == [[text]] and thumbnails == []
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert script == re.findall(r"<script>(.*?)</script>", plain, re.S)
    json_text = page.split('id="content">')[1].split("</script")[0]
    assert json_text.isascii() and not re.search("[<>&]", json_text)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("<>&/!-'\"\\@")), max_size=60))
def test_any_text_comes_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("page") / "report.html"
    content, _ = blocks(written(path, {}, [{"response": text}], title=text))
    assert (content["rows"][0]["response"], content["title"]) == (text, text)


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"overall": None, "groups": None, "tasks": None, "warnings": None, "protocol": None},
        {"overall": {"samples": None, "task_mean": None}, "groups": {"ID VSA": {}}, "tasks": {"FI-2": None}},
        {"tasks": {"FI-2": {"ece": float("nan"), "brier": Decimal("0.5"), "risk_coverage": None}}},
    ],
)
def test_what_is_missing_or_undefined_is_null(tmp_path, metrics):
    rows = [{}, {"id": None, "flags": None, "candidates": None, "confidence": None, "posterior": None}]
    content, _ = blocks(written(tmp_path / "report.html", metrics, rows))
    assert len(content["rows"]) == 2
    if "FI-2" in (metrics.get("tasks") or {}) and metrics["tasks"]["FI-2"]:
        assert content["tasks"][0]["samples"] == {"ece": None, "brier": 0.5, "risk_coverage": None}


def test_a_task_may_have_any_name(tmp_path):
    names = ["thresholds", "overall", "2", "1", "__proto__"]
    metrics = {"tasks": {name: {"n": 1, "thresholds": [1]} for name in names}}
    content, _ = blocks(written(tmp_path / "report.html", metrics, []))
    assert [(task["name"], task["samples"]) for task in content["tasks"]] == [
        (name, {"n": 1}) for name in names
    ]


def test_a_long_curve_keeps_its_ends(tmp_path):
    curve = [{"coverage": (i + 1) / 5000, "risk": 0.1, "threshold": 0.5} for i in range(5000)]
    content, _ = blocks(written(tmp_path / "report.html", {"tasks": {"a": {"risk_coverage": curve}}}, []))
    kept = content["tasks"][0]["samples"]["risk_coverage"]
    assert len(kept) == 400
    assert (kept[0]["coverage"], kept[-1]["coverage"]) == (0.0002, 1.0)


def test_thumbnails_are_beside_the_rows_and_can_be_left_out(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [{"image": "a.png"}, {"image": "b.png"}, {"image": "a.png"}]
    content, thumbnails = blocks(written(tmp_path / "report.html", {}, rows, image_root=tmp_path))
    assert [row["thumbnail"] for row in content["rows"]] == [0, None, 0]
    assert len(thumbnails) == 1
    assert blocks(written(tmp_path / "report.html", {}, rows, image_root=None))[1] == []


def test_a_page_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    def rows():
        yield {"id": "a"}
        raise OSError("the disk is gone")

    before = written(tmp_path / "report.html", {}, [])
    with pytest.raises(OSError, match="gone"):
        written(tmp_path / "report.html", {}, rows())
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_importing_it_is_light():
    code = "import sys, emocaliber.report.page; print({'numpy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def save_image(path, color="red", size=(300, 150), mode="RGB", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **more)


def thumbnails_for(tmp_path, *images):
    pictures, places = thumbnails_of(images, tmp_path / "root")
    return places, pictures


def test_rows_with_one_image_share_a_small_copy_of_it(tmp_path):
    save_image(tmp_path / "root" / "a.png")
    save_image(tmp_path / "root" / "b.jpg", "blue", (40, 20))
    places, thumbnails = thumbnails_for(tmp_path, "a.png", "b.jpg", "./a.png", "x/../a.png", "b.jpg")
    assert places == [0, 1, 0, 0, 1]
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in thumbnails]
    assert [(image.format, image.size) for image in images] == [("JPEG", (96, 48)), ("JPEG", (40, 20))]


def test_wide_grey_is_shown_as_the_model_sees_it(tmp_path):
    (tmp_path / "root").mkdir()
    values = np.full((40, 40), 32768, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "root" / "wide.png")
    _, [text] = thumbnails_for(tmp_path, "wide.png")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=int)
    assert abs(shown - 127).max() <= 2  # a JPEG is not exact


def test_an_image_outside_the_root_is_not_read(tmp_path):
    save_image(tmp_path / "secret.png")
    save_image(tmp_path / "root_of_another" / "b.png")
    save_image(tmp_path / "root" / "a.png")
    os.symlink(tmp_path / "secret.png", tmp_path / "root" / "link.png")
    outside = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "../root_of_another/b.png"]
    assert thumbnails_for(tmp_path, *outside) == ([None] * 4, [])
    assert thumbnails_for(tmp_path, "link.png", str(tmp_path / "root" / "a.png"))[0] == [None, 0]


def test_an_image_that_cannot_be_read_costs_its_thumbnail_only(tmp_path):
    root = tmp_path / "root"
    save_image(root / "good.png")
    (root / "text.png").write_text("no image", encoding="utf-8")
    (root / "cut.png").write_bytes((root / "good.png").read_bytes()[:60])
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    names = [
        "text.png",
        "cut.png",
        "folder.png",
        "pipe.png",
        "no.png",
        "a\0b",
        "\ud800",
        "x" * 5000,
        "",
        None,
    ]
    places, thumbnails = thumbnails_for(tmp_path, *names, "good.png")
    assert places == [*[None] * len(names), 0]
    assert len(thumbnails) == 1


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, recwarn):
    save_image(tmp_path / "root" / "large.png", 1, (10_000, 9_000), "1")
    save_image(tmp_path / "root" / "long.png", 1, (50_000, 1_000), "1")  # exactly as many as may be
    assert thumbnails_for(tmp_path, "large.png", "long.png")[0] == [None, 0]
    assert not recwarn.list


def test_a_thumbnail_is_upright_and_its_paper_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    save_image(tmp_path / "root" / "turned.jpg", exif=exif)
    save_image(tmp_path / "root" / "clear.png", (0, 0, 0, 0), mode="RGBA")
    _, thumbnails = thumbnails_for(tmp_path, "turned.jpg", "clear.png")
    turned, clear = (Image.open(io.BytesIO(base64.b64decode(text))) for text in thumbnails)
    assert turned.size == (48, 96)
    assert clear.getpixel((5, 5)) == (255, 255, 255)


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
    path = tmp_path / "page.html"
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


def test_of_too_many_rows_the_first_are_shown_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("emocaliber.report.page.MOST_ROWS", 100)
    rows = [failed(str(number), "image_missing") for number in range(105)]
    write_prediction_page(tmp_path / "page.html", rows, title="many", image_root=None)
    content, _ = content_of(tmp_path / "page.html")
    assert len(content["rows"]) == 100
    assert content["warnings"] == ["Only the first 100 of 105 rows are on this page."]
