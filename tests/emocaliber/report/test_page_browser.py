"""report.html in a real browser: it shows what it was given, and reacts to the pointer and to keys."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from emocaliber.records import RECORD_INVALID
from emocaliber.report.page import write_page, write_prediction_page

LABELS = ["anger", "awe", "fear", "sadness"]
STEPS = ("element", "human", "context", "interaction", "analysis")


def answer_row(number, task="Abstract-4", label="awe", truth="awe", confidence=0.8, **more):
    said = {step: f"{step} of {number}" for step in STEPS}
    sections = "".join(f"<{step}>{text}</{step}>" for step, text in said.items())
    row = {
        "id": f"{task}-{number}",
        "task": task,
        "candidates": LABELS,
        "truth": truth,
        "label": label,
        "confidence": confidence,
        "correct": label == truth,
        "status": "answered" if label else "unparsed",
        "response": f"<think>{sections}</think><answer>{label}</answer>",
    }
    return row | more


def some_rows():
    return [
        answer_row(1, confidence=0.85),
        answer_row(2, label="fear", confidence=0.6),
        answer_row(3, label="fear", confidence=0.9),
        answer_row(10, label=None, confidence=0.8, label_reason="no_answer", flags=["truncated"]),
        answer_row(4, task="Ink-4", truth="sadness", label="sadness", confidence=0.3),
        answer_row(5, task="Ink-4", label="anger", confidence=None, confidence_reason="missing"),
        answer_row(
            6,
            task="Ink-4",
            label=None,
            confidence=None,
            status="failed",
            error="ImageError: cut off",
            response=None,
        ),
    ]


def bins_of(rows):
    """Ten equal bins [low, high), the last one closed."""
    stated = [(row["confidence"], row["correct"]) for row in rows if row["confidence"] is not None]
    bins = []
    for tenth in range(10):
        inside = [right for c, right in stated if min(9, int(c * 10 + 1e-9)) == tenth]
        mean = tenth / 10 + 0.05 if inside else None
        acc = sum(inside) / len(inside) if inside else None
        ends = {"low": tenth / 10, "high": (tenth + 1) / 10, "null_low": 0.2, "null_high": 0.9}
        bins.append({**ends, "n": len(inside), "n_correct": sum(inside), "mean_confidence": mean, "acc": acc})
    return bins


def summary_of(rows):
    counts = [[0] * (len(LABELS) + 1) for _ in LABELS]
    for row in rows:
        counts[LABELS.index(row["truth"])][LABELS.index(row["label"]) if row["label"] else -1] += 1
    status = [row["status"] for row in rows]
    return {
        "n": len(rows),
        **{name: status.count(name) for name in ("answered", "unparsed", "failed")},
        "unparsed_reasons": {"no_answer": status.count("unparsed")},
        "failed_reasons": {"ImageError": status.count("failed")},
        "flags": {"truncated": sum("truncated" in row.get("flags", ()) for row in rows)},
        "acc": sum(row["correct"] for row in rows) / len(rows),
        "ece": 0.2,
        "intervals": {"acc": [0.1, 0.9], "ece": None},
        "null_ece": {"mean": 0.0312, "p95": 0.0456},
        "reliability_bins": bins_of(rows),
        "risk_coverage": [{"coverage": i / 20, "risk": i / 50, "threshold": 0.5} for i in range(1, 21)],
        "confusion": {"labels": LABELS, "counts": counts},
    }


def metrics_of(rows):
    names = list(dict.fromkeys(row["task"] for row in rows))
    pooled = {"samples": summary_of(rows), "task_mean": {"acc": 0.5}, "tasks": names}
    first = [row for row in rows if row["task"] == names[0]]
    return {
        "predictions": ["a.jsonl"],
        "protocol": "default",
        "overall": pooled,
        "groups": {"OOD VER": {**pooled, "samples": summary_of(first), "tasks": names[:1]}},
        "tasks": {name: summary_of([row for row in rows if row["task"] == name]) for name in names},
    }


def save(tmp_path, rows, metrics=None, title="a run", image_root=None):
    path = tmp_path / "report.html"
    write_page(
        path, metrics_of(rows) if metrics is None else metrics, rows, title=title, image_root=image_root
    )
    return path


def listed(page):
    """The ids in the list, in their order."""
    return page.eval_on_selector_all(
        ".line .which bdi:last-child", "all => all.map((one) => one.textContent)"
    )


def fact(page, name):
    return page.locator(f"#card dt:text-is('{name}') + dd").text_content()


def test_rows_of_one_answer_are_listed(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened()
    options = page.locator("#filter-label option").all_text_contents()
    assert options == ["any", "anger (1)", "awe (1)", "fear (2)", "sadness (1)", "none (2)"]
    page.select_option("#filter-label", label="fear (2)")
    assert listed(page) == ["Abstract-4-2", "Abstract-4-3"]
    page.select_option("#filter-label", label="none (2)")
    assert listed(page) == ["Abstract-4-10", "Ink-4-6"]
    page.locator("#reset").click()
    assert page.input_value("#filter-label") == ""
    assert len(listed(page)) == 7


def test_the_numbers_are_there(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened()
    assert page.locator("h1").text_content() == "a run"
    assert page.locator(".equation").text_content() == "7 rows = 5 answered + 1 unparsed + 1 failed"
    first = page.locator(".scores").first.locator("tbody tr").first
    cells = first.locator("th, td").all_text_contents()
    assert cells[:2] == ["Abstract-4", "25.00[10.00, 90.00]"]
    assert cells[3:5] == ["20.00", "3.1295 %: ≤ 4.56"]
    assert cells[5] == "–"
    terms = page.locator("#glossary dt").all_text_contents()
    assert "AUGRC" in terms and len(terms) == page.locator("#glossary dd").count()
    assert "[object" not in page.locator("body").inner_text()
    assert page.locator("#diagrams figure").count() == 2
    assert page.locator("#risk polyline").count() == 2
    page.locator("#series .chip", has_text="Ink-4").click()
    assert page.locator("#diagrams figure").count() == 3
    truth_awe = page.locator("table.confusion tbody tr").nth(1)
    assert truth_awe.locator("td").all_text_contents() == ["·", "1", "2", "·", "1", "4"]


@pytest.mark.parametrize("metrics", [{}, {"tasks": {"Ink-4": {}}, "groups": {"OOD VER": {}}, "overall": {}}])
def test_a_page_without_numbers_still_shows_its_rows(opened, tmp_path, metrics):
    save(tmp_path, [*some_rows(), {}], metrics)
    page = opened()
    assert page.locator(".line").count() == 8
    assert page.locator(".equation").text_content() == "– rows = – answered + – unparsed + – failed"


def test_several_confidences_are_compared_in_a_table(opened, tmp_path):
    scores = {"acc": 0.5, "ece": 0.2, "auroc_within_tasks": 0.625, "intervals": {"ece": [0.1, 0.3]}}
    one = {"n": 4, "confidences": {"stated": scores, "agreement": {**scores, "ece": None, "intervals": {}}}}
    save(
        tmp_path,
        some_rows(),
        {"confidences": {"n_rows": 4, "overall": one, "groups": {}, "tasks": {"A": one}}},
    )
    page = opened()
    rows = page.locator("table", has_text="Confidences compared").locator("tbody tr")
    assert [row.locator("th, td").all_text_contents() for row in rows.all()] == [
        [name, title, "50.00", ece, "–", "–", "–", "62.50", "–", "4"]
        for name in ("A", "Overall")
        for title, ece in (("stated", "20.00[10.00, 30.00]"), ("agreement", "–"))
    ]
    assert "confidences" not in page.locator("#facts").text_content()


def test_filters_change_what_is_listed(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened()
    ids = [row["id"] for row in some_rows()]
    assert listed(page) == ids
    page.select_option("#filter-task", "task:Ink-4")
    assert listed(page) == ids[4:]
    page.select_option("#filter-task", "group:OOD VER")
    assert listed(page) == ids[:4]
    page.locator("[data-outcome=wrong]").click()
    assert listed(page) == ids[1:3]
    page.fill("#confidence-low", "0.7")
    assert listed(page) == ids[2:3]
    page.fill("#confidence-high", "0.8")
    assert listed(page) == []
    assert "No row" in page.locator("#card").text_content()
    page.click("#reset")
    assert listed(page) == ids and page.input_value("#confidence-low") == ""
    for reason, number in (("label:no_answer", 3), ("confidence:missing", 5), ("flag:truncated", 3)):
        page.select_option("#filter-reason", reason)
        assert listed(page) == [ids[number]]
    page.click("#reset")
    for text, found in (
        ("HUMAN OF 2", ids[1:2]),
        ("ink-4-5", ids[5:6]),
        ("imageerror", ids[6:]),
        ("zzz", []),
    ):
        page.fill("#search", text)
        assert listed(page) == found


def test_sorting(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened()
    orders = {
        "most confident errors first": ["3", "10", "2", "5", "6", "4", "1"],
        "confidence, high to low": ["3", "1", "10", "2", "4", "5", "6"],
        "confidence, low to high": ["4", "2", "10", "1", "3", "5", "6"],
        "task": ["1", "2", "3", "10", "4", "5", "6"],
        "id": ["1", "2", "3", "10", "4", "5", "6"],
    }
    for name, order in orders.items():
        page.select_option("#sort", label=name)
        assert [one.rsplit("-", 1)[1] for one in listed(page)] == order, name


def test_keys(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened()
    ids = [row["id"] for row in some_rows()]
    for keys, place in (("jj", 2), ("k", 1), ("kkk", 0)):
        for key in keys:
            page.keyboard.press(key)
        assert fact(page, "Id") == ids[place]
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    assert fact(page, "Id") == ids[1]
    page.keyboard.press("End")
    assert fact(page, "Id") == ids[-1]
    page.keyboard.press("/")
    page.keyboard.type("jk of 5")
    assert page.input_value("#search") == "jk of 5" and listed(page) == []
    page.keyboard.press("Escape")
    assert page.input_value("#search") == "" and listed(page) == ids
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("?")
    assert page.is_visible("#key-help")
    page.keyboard.press("Escape")
    assert page.is_hidden("#key-help")


def test_the_card(opened, tmp_path):
    Image.new("RGB", (200, 100), "red").save(tmp_path / "red.png")
    known = answer_row(7, label="fear", image="red.png", posterior={"awe": 0.75, "fear": 0.25})
    save(tmp_path, [known, *some_rows()], image_root=tmp_path)
    page = opened()
    assert page.locator("#card .steps p").all_text_contents() == [f"{step} of 7" for step in STEPS]
    assert [fact(page, name) for name in ("Answer", "Truth", "Confidence")] == ["fear", "awe", "0.80"]
    assert page.locator("#card .candidates li").all_text_contents() == [
        *("anger0.0", "awetruth75.0", "fearanswer25.0", "sadness0.0")
    ]
    page.wait_for_function("document.querySelector('#card img').complete")
    assert page.evaluate("document.querySelector('#card img').naturalWidth") == 96
    page.locator(".line").nth(7).click()
    assert page.locator("#card .error").text_content() == "ImageError: cut off"
    assert page.locator("#card img").count() == 0


def test_tables_and_charts_lead_to_their_rows(opened, tmp_path):
    rows = some_rows()
    save(tmp_path, rows)
    page = opened()
    page.locator("table.confusion tbody tr").nth(1).locator("td button").nth(1).click()
    assert listed(page) == [rows[1]["id"], rows[2]["id"]]
    page.locator("#pairs button").click()
    assert len(listed(page)) == 4
    for number, one in enumerate(one for one in bins_of(rows) if one["n"]):
        page.locator("#diagrams figure").first.locator(".hit").nth(number).click()
        assert len(listed(page)) == one["n"]
    for reason, number in (("no_answer", 3), ("ImageError", 6), ("truncated", 3)):
        page.locator("#accounts button", has_text=reason).click()
        assert listed(page) == [rows[number]["id"]]


def test_the_legend_reads_the_risk_where_the_pointer_is(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened()

    def read():
        title = page.locator(".legend th").nth(1).text_content()
        return title.removeprefix("Risk "), float(page.locator(".legend td").first.text_content())

    assert read() == ("at the end", 40.0)
    page.hover("#risk svg >> nth=0")
    coverage, risk = read()
    at = int(coverage.removeprefix("@ "))
    assert 40 < at < 60
    assert risk == pytest.approx(0.4 * at, abs=1)
    page.hover("#risk .legend")
    assert read() == ("at the end", 40.0)


def test_the_arrows_move_in_the_confusion_matrix(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened()
    page.locator("table.confusion button[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "truth awe, answer fear: 2"


def test_of_a_benchmark_only_the_rows_in_sight_are_elements(opened, tmp_path):
    chance = random.Random(0)
    rows = [
        answer_row(n, f"Task-{n % 9}", chance.choice(LABELS), chance.choice(LABELS), n % 101 / 100)
        for n in range(8032)
    ]
    for row in rows:
        row["response"] += "It is a quiet place, and the light is soft. " * 30
    save(tmp_path, rows)
    page = opened()
    assert page.locator(".line").count() < 60
    page.fill("#search", "of 8031")
    assert page.locator("#found").text_content().startswith("1 of 8,032 rows")
    page.fill("#search", "quiet")
    page.select_option("#filter-task", "task:Task-3")
    page.select_option("#sort", "1")
    in_task = sum(row["task"] == "Task-3" for row in rows)
    assert page.locator("#found").text_content().startswith(f"{in_task} of 8,032 rows")
    page.focus("#list")
    page.keyboard.press("End")
    assert page.locator("[aria-selected=true]").get_attribute("aria-posinset") == str(in_task)


def test_light_and_dark(opened, tmp_path):
    save(tmp_path, some_rows())
    means = {}
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        for theme in ("auto", "light", "dark"):
            assert page.locator("#theme").text_content() == f"Theme: {theme}"
            file = tmp_path / f"{scheme}_{theme}.png"
            page.screenshot(path=file, full_page=True)
            means[scheme, theme] = np.asarray(Image.open(file).convert("L")).mean()
            page.click("#theme")
    assert {key: "light" if mean > 128 else "dark" for key, mean in means.items()} == {
        **{(scheme, "auto"): scheme for scheme in ("light", "dark")},
        **{(scheme, theme): theme for scheme in ("light", "dark") for theme in ("light", "dark")},
    }


def test_print(opened, tmp_path):
    save(tmp_path, some_rows())
    page = opened(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.is_hidden("#list") and page.is_hidden(".bar") and page.is_visible("#card")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


# Pages of predictions without a truth
def prediction(identity, label, confidence):
    steps = "".join(f"<{step}>{step} of {identity}</{step}>" for step in STEPS)
    answer = f"<answer>{label}</answer><confidence>{confidence}</confidence>" if label else ""
    row = {"id": f"{identity}.png", "image": f"{identity}.png", "task": "own images"}
    return {**row, "candidates": ["awe", "fear", "joy"], "response": f"<think>{steps}</think>{answer}"}


def failed_prediction(identity, kind, **fields):
    return {"id": identity, "task": "own images", "error": {"type": kind, "message": "why"}, **fields}


@pytest.fixture
def page_file(tmp_path):
    answers = {"a": ("joy", "0.9"), "b": ("fear", "0.35"), "c": ("joy", "0.6"), "d": (None, None)}
    for number, identity in enumerate(answers):
        Image.new("RGB", (400, 200), (60 * number, 100, 30)).save(tmp_path / f"{identity}.png")
    records = [
        *(prediction(identity, *answer) for identity, answer in answers.items()),
        failed_prediction("e.png", "image_unreadable", image="e.png", candidates=["awe"]),
        failed_prediction("line-6", RECORD_INVALID),
    ]
    path = tmp_path / "report.html"
    write_prediction_page(path, records, title="my images", image_root=tmp_path)
    return path


def test_a_browser_lists_filters_and_sorts(opened, page_file):
    page = opened()
    assert page.locator("h1").text_content() == "my images"
    assert page.locator(".equation").text_content() == "6 rows = 3 answered + 1 unparsed + 2 failed"
    assert listed(page) == ["a.png", "b.png", "c.png", "d.png", "e.png", "line-6"]
    assert page.locator(".line img").count() == 4
    assert page.locator("#card .steps p").all_text_contents() == [f"{name} of a" for name in STEPS]
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


def test_a_browser_shows_the_errors(opened, page_file):
    page = opened()
    chips = page.locator("#outcomes .chip").all_text_contents()
    assert chips == ["all6", "answered3", "? unparsed1", "! failed2"]
    page.locator("[data-outcome=failed]").click()
    assert page.locator(".line .answer").all_text_contents() == ["image_unreadable", "record_invalid"]
    assert page.locator("#card .error").text_content() == "image_unreadable: why"
    page.keyboard.press("j")
    assert page.locator("#card .error").text_content() == "record_invalid: why"


# Hostile texts
BOMB = "window.__pwned = 1; alert(1)"
HOSTILE = (
    f"<script>{BOMB}</script>",
    f"</script><script>{BOMB}</script>",
    f"<img src=x onerror='{BOMB}'>",
    f"<svg onload='{BOMB}'><a href='javascript:{BOMB}'>x</a></svg>",
    f"javascript:{BOMB}",
    f"'\"; {BOMB} //\u2028{BOMB}\u2029",
    f"]]><!-- <script>{BOMB}</script> -->",
    f"<iframe srcdoc='<script>parent.{BOMB}</script>'></iframe>",
    "<div>" * 3000 + f"<script>{BOMB}</script>",
    "<base href='https://example.com/'><link rel=stylesheet href='https://example.com/a.css'>",
    "${alert(1)} {{constructor.constructor('alert(1)')()}}",
    "\x00\x07\x1b[31m\u202eesrever",
    "\ud800",
    "__proto__",
)
BINS = [{"low": 0.9, "high": 1.0, "n": 4, "n_correct": 3, "mean_confidence": 0.95, "acc": 0.75}]
CURVE = [{"coverage": 1.0, "risk": 0.25, "threshold": 0.9}]


def test_hostile_text_is_only_text(opened, tmp_path):
    rows, metrics = [], {"warnings": list(HOSTILE), "predictions": list(HOSTILE), "tasks": {}, "groups": {}}
    for number, text in enumerate(HOSTILE):
        names = dict.fromkeys(("task", "truth", "label", "image", "error", "label_reason"), text)
        row = {
            **names,
            "id": f"{number} {text}",
            "response": f"<think><element>{text}</element></think>{text}",
        }
        rows.append(
            row | {"candidates": [text], "flags": [text], "posterior": {text: 1.0}, "status": "answered"}
        )
        summary = {"n": 4, "reliability_bins": BINS, "risk_coverage": CURVE}
        summary |= {"confusion": {"labels": [text], "counts": [[3, 1]]}}
        summary |= {"flags": {text: 1}, "failed_reasons": {text: 1}, "unparsed_reasons": {text: 1}}
        metrics["tasks"][text] = summary
        metrics["groups"][text] = {"samples": summary, "tasks": [text], "task_mean": {}}
    metrics["overall"] = {"samples": metrics["tasks"][HOSTILE[0]], "task_mean": {}}
    write_page(tmp_path / "report.html", metrics, rows, title=HOSTILE[1], image_root=tmp_path)
    page = opened()
    for chip in page.locator("#series .chip").all():
        if chip.get_attribute("aria-pressed") == "false":
            chip.click()
    for number in range(len(HOSTILE)):
        page.select_option("#confusion-task", str(number))
        page.locator("#card summary").click()
        sent = f"<think><element>{HOSTILE[number]}</element></think>{HOSTILE[number]}"
        # Sent as JSON: what is no character by itself would not survive the way out of the browser.
        shown = page.evaluate("JSON.stringify(document.querySelector('#card pre').textContent)")
        assert json.loads(shown) == sent
        page.keyboard.press("j")
    for button in page.locator("#accounts button").all():
        button.click()
    assert page.locator("script").count() == 2
    assert page.locator("iframe, link[rel=stylesheet], base, a[href^='javascript']").count() == 0
    assert page.locator("[onerror], [onload], [style*=expression]").count() == 0
    assert page.evaluate("document.title") == HOSTILE[1]


def test_the_policy_stops_a_script_that_gets_in_all_the_same(browser, tmp_path):
    path = tmp_path / "report.html"
    write_page(path, {}, [], title="a run", image_root=None)
    text = path.read_text(encoding="utf-8").replace("</body>", "<script>window.__pwned = 1</script></body>")
    policy = text[text.index('<meta http-equiv="Content-Security-Policy"') :].split("\n")[0]
    for page_text, has_run in ((text, False), (text.replace(policy, ""), True)):
        path.write_text(page_text, encoding="utf-8")
        page = browser.new_page()
        page.goto(path.as_uri())
        assert page.evaluate("window.__pwned === 1") is has_run
        assert page.evaluate("try_html = () => { document.body.innerHTML = 'x' }; 0") == 0
        refused = page.evaluate("() => { try { try_html(); return false } catch { return true } }")
        assert refused is not has_run
        page.close()
