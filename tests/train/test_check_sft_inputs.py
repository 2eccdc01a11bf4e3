"""Wrong models and data of a fine-tuning run: one line, exit 2, before anything heavy starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "train" / "check_sft_inputs.py"
ROW = {
    "messages": [{"role": "user", "content": "<image>Which?"}, {"role": "assistant", "content": "awe"}],
    "images": ["a.jpg"],
}


def check(folder: Path, rows: list[object], model: str | None = None) -> subprocess.CompletedProcess[str]:
    (folder / "a.jpg").touch()
    data = folder / "rows.jsonl"
    data.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    good = folder / "model"
    good.mkdir()
    (good / "config.json").touch()
    (good / "model.safetensors").touch()
    command = [sys.executable, str(SCRIPT), "--model", model or str(good), "--dataset", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_good_inputs_are_counted(tmp_path: Path) -> None:
    result = check(tmp_path, [ROW, ROW])
    assert result.returncode == 0
    assert "2 rows" in result.stdout


def test_a_hub_name_is_left_to_the_hub(tmp_path: Path) -> None:
    assert check(tmp_path, [ROW], "Qwen/Qwen2.5-VL-7B-Instruct").returncode == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{nonsense", ":2"),
        ({"messages": ROW["messages"][:1]}, ":2: no `messages` that end with the assistant's answer"),
        ({"messages": ["a"]}, ":2: no `messages` that end with the assistant's answer"),
        (ROW | {"images": []}, ":2: 1 <image> in the messages for 0 images"),
        (ROW | {"images": "b.jpg"}, "b.jpg is missing"),
        (ROW | {"images": [{"path": "b.jpg"}]}, "b.jpg is missing"),
        (ROW | {"images": ["b.jpg"]}, "b.jpg is missing; set IMAGE_ROOT"),
    ],
)
def test_bad_rows(tmp_path: Path, bad: object, message: str) -> None:
    result = check(tmp_path, [ROW, bad])
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_forms_that_ms_swift_takes_are_taken(tmp_path: Path) -> None:
    unmarked = {"messages": [{"role": "user", "content": "Which?"}, ROW["messages"][1]], "images": "a.jpg"}
    images = [[{"path": "a.jpg"}], [{"bytes": "AAAA"}], ["http://localhost/a.jpg"]]
    result = check(tmp_path, [unmarked, *({**ROW, "images": form} for form in images)])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("model", ["./nowhere", "nowhere", "/no/where/at/all"])
def test_bad_models(tmp_path: Path, model: str) -> None:
    result = check(tmp_path, [ROW], model)
    assert result.returncode == 2
    assert f"error: {model}: no such model folder" in result.stderr


def test_no_rows(tmp_path: Path) -> None:
    assert "no rows" in check(tmp_path, []).stderr
