"""report.html in a real browser: nothing that a model or a data set wrote runs, and nothing is fetched."""

import json

import pytest

from emocaliber.report.page import write_page

pytestmark = pytest.mark.slow

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
