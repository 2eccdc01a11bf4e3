"""Data described: counts, sizes and tokens worked by hand, figures that are there, pages that only show."""

import json
import os
from pathlib import Path
from typing import Any

import in_process
import pytest
from in_process import Result
from PIL import Image

from data import describe
from emocaliber.prompts import conversation, training_chat

ROOT = Path(__file__).parents[2]

CHECKPOINT = ROOT / "models" / "EmoCaliber-mini"
CHROMIUM = os.environ.get("EMOCALIBER_CHROMIUM", "/usr/bin/chromium")
EVIL = '</h1><script>document.title="pwned"</script><img src=x onerror="document.title=1">$x_{$'
CANDIDATES = ["amusement", "awe", "fear"]


def run(folder: Path, *arguments: str) -> Result:
    return in_process.run(describe.main, *arguments, "--output-dir", folder / "out", "--workers", "1")


def record(number: int, task: str, label: str) -> dict[str, Any]:
    image = f"{number}.png"
    return {
        "id": f"row-{number}",
        "image": image,
        "conversations": conversation(image, CANDIDATES),
        "task": task,
        "ground_truth": label,
        "candidates": [*CANDIDATES, EVIL],
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(5):
        Image.new("RGB", (112 + 112 * (number % 2), 112), (40 * number, 0, 0)).save(
            tmp_path / f"{number}.png"
        )
    rows = [record(0, "EmoSet-8", "awe"), record(1, "EmoSet-8", "awe"), record(2, "EmoSet-8", "fear")]
    rows += [record(3, EVIL, EVIL), record(9, "FI-8", "awe")]
    chat = training_chat("4.png", "What?", "<answer>awe</answer>")
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chats = [{"task": task, "ground_truth": "awe", **chat} for task in ("EmoSet-8", "FI-2")]
    (tmp_path / "stage1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    return tmp_path


def test_counts_labels_images_and_what_is_left_out(data: Path) -> None:
    result = run(data, str(data / "test.jsonl"), f"stage 1={data / 'stage1.jsonl'}", "--per-label", "0")
    assert result.returncode == 0, result.stderr
    found = json.loads((data / "out/summary.json").read_text())
    assert found["rows"]["test"] == {"EmoSet-8": 3, "FI-8": 1, EVIL: 1}
    assert found["groups"]["test"] == {"ID VER": 4, "other tasks": 1}
    assert found["chats"] == {"stage 1": {"EmoSet-8": 1, "FI-2": 1}}
    assert found["labels"]["EmoSet-8"] == {"test": {"awe": 2, "fear": 1}, "stage 1": {"awe": 1}}
    images = found["images"]["test"]
    assert (images["n"], images["formats"]) == (5, {"PNG RGB": 4})
    assert images["width_pixels"] == {
        "min": 112,
        "p5": 112,
        "median": 112,
        "p95": 224,
        "max": 224,
        "mean": 168,
    }
    assert found["left_out"] == {"image_missing": 1}
    listed = [json.loads(line) for line in (data / "out/left_out.jsonl").read_text().splitlines()]
    assert listed[0]["where"] == f"{data / 'test.jsonl'}:5" and listed[0]["reason"] == "image_missing"
    for name in ("composition", "labels", "image_sizes"):
        with Image.open(data / "out" / f"{name}.png") as figure:
            assert figure.width > 400
    assert not (data / "out/token_lengths.png").exists() and not (data / "out/contact_sheets").exists()
    assert (data / "out/summary.txt").read_text() in result.stdout
    assert "| total           | 4        | 1    |" in result.stdout


@pytest.mark.slow
def test_tokens_are_those_that_the_processor_makes(data: Path) -> None:
    from transformers import AutoProcessor

    result = run(data, str(data / "stage1.jsonl"), "--checkpoint", str(CHECKPOINT), "--per-label", "0")
    assert result.returncode == 0, result.stderr
    tokens = json.loads((data / "out/summary.json").read_text())["tokens"]["stage1"]
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    messages = json.loads((data / "stage1.jsonl").read_text().splitlines()[0])["messages"]
    messages[1]["content"] = [{"type": "image"}, {"type": "text", "text": "What?"}]
    text = processor.apply_chat_template(messages, tokenize=False)
    made = processor(text=[text], images=[Image.open(data / "4.png")])["input_ids"][0]
    image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    n_image = list(made).count(image_id)
    assert n_image > 1
    assert (tokens["all"]["max"], tokens["image"]["max"]) == (len(made), n_image)
    answer = processor.tokenizer("<answer>awe</answer>", add_special_tokens=False)["input_ids"]
    assert tokens["answer"]["max"] == len(answer)
    assert tokens["question"]["max"] == len(made) - n_image - len(answer)


@pytest.mark.slow
def test_contact_sheets_show_every_label_and_run_nothing_that_data_say(data: Path) -> None:
    assert run(data, str(data / "test.jsonl")).returncode == 0
    sheets = data / "out/contact_sheets"
    pages = sorted(sheets.glob("*.html"))
    assert [page.name for page in pages][:2] == ["01_EmoSet-8.html", "02_FI-8.html"] and len(pages) == 4
    if not os.access(CHROMIUM, os.X_OK):
        pytest.fail(f"{CHROMIUM} is not there: bash tests/install_browser.sh installs it", pytrace=False)
    from playwright.sync_api import sync_playwright

    requests: list[str] = []
    with sync_playwright() as playwright:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.goto((sheets / "01_EmoSet-8.html").as_uri())
        assert page.locator("h2").all_inner_texts() == ["awe 2 rows", "fear 1 rows"]
        pictures = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(pictures) == 3 and min(pictures) > 0
        page.goto((sheets / "02_FI-8.html").as_uri())
        assert page.locator(".none").inner_text() == "not readable"
        page.goto((sheets / "index.html").as_uri())
        page.get_by_role("link", name="script").click()
        assert page.locator("h1").inner_text() == EVIL and "pwned" not in page.title()[:5]
        assert page.locator("script").count() == 0
        browser.close()
    assert all(url.startswith(("file:", "data:")) for url in requests)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "cannot be read"),
        (["{data}/test.jsonl", "{data}/test.jsonl"], "given twice"),
        (["{data}/test.jsonl", "--min-pixels", "5"], "--checkpoint with it"),
        pytest.param(
            *(["{data}/test.jsonl", "--checkpoint", "{data}/none"], "none: no processor"),
            marks=pytest.mark.slow,  # imports torch
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(data: Path, arguments: list[str], message: str) -> None:
    result = run(data, *(argument.format(data=data) for argument in arguments))
    assert result.returncode == 2 and message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (data / "out").exists()


def test_names_that_are_no_unicode_are_described(tmp_path: Path) -> None:
    """A file name that is not UTF-8, a task and a label with half a surrogate pair."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a\udcff.png")
    row = record(0, "T\ud800", "L\ud800") | {"image": "a\udcff.png"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    assert run(tmp_path, str(tmp_path / "test.jsonl")).returncode == 0
    assert json.loads((tmp_path / "out/summary.json").read_text())["rows"] == {"test": {"T\ud800": 1}}
    assert "T\\ud800" in (tmp_path / "out/summary.txt").read_text()
