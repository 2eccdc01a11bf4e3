"""infer.py with a server: what run.json says of it, and another model; the bound of constrained sections."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference import infer as module
from inference.runs.arguments import parse_arguments
from inference.runs.plan import LARGE_VOCABULARY, LONGEST_SECTION, make_asking, make_plan

sys.path.append(str(Path(__file__).parents[1]))

from chat_server import chat_server

Row = dict[str, Any]
ANSWER = "<answer>awe</answer><confidence>0.7</confidence>"

pytestmark = pytest.mark.usefixtures("own_signals")


@pytest.fixture
def data(tmp_path: Path, make_row: Callable[..., Row], write_rows: Callable[..., Path]) -> Path:
    Image.new("RGB", (112, 112)).save(tmp_path / "a.png")
    rows = [make_row(f"r{number}", "a.png", f"question {number}") for number in range(4)]
    return write_rows(tmp_path / "test.jsonl", rows)


def command_line(data: Path, url: str, *flags: str) -> list[str]:
    folder = str(data.parent / "run")
    return ["--backend", "server", "--server-url", url, "--data", str(data), "--output-dir", folder, *flags]


def attempts(data: Path) -> list[Row]:
    found: list[Row] = json.loads((data.parent / "run" / "run.json").read_text())["attempts"]
    return found


def test_run_json_says_what_the_server_was_sent_and_what_it_cost(
    data: Path, read_rows: Callable[[Path], list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-indeed")
    with chat_server(lambda text, before: 429 if text == "question 1" and before < 2 else ANSWER) as server:
        assert module.main(command_line(data, server.url, "--price-in", "10", "--price-out", "0")) == 0
    assert set(server.keys) == {"Bearer sk-very-secret-indeed"}
    assert "very-secret" not in (data.parent / "run" / "run.json").read_text()
    (attempt,) = attempts(data)
    assert attempt["requests"]["requests"] == 6
    assert attempt["requests"]["by_outcome"] == {"200": 4, "429": 2}
    assert attempt["engine_arguments"]["model"] == "m"
    assert attempt["cost"] == pytest.approx(4 * 100 * 10 / 1e6)
    assert [row["response"] for row in read_rows(data.parent / "run" / "predictions.jsonl")] == [ANSWER] * 4


def test_refused_rows_are_kept_and_another_model_is_not_mixed_in(
    data: Path, capsys: pytest.CaptureFixture[str], read_rows: Callable[[Path], list[Row]]
) -> None:
    def reply(text: str, before: int) -> str | int:
        return 400 if text in ("question 0", "question 1") else ANSWER

    with chat_server(reply) as server:
        flags = ["--batch-size", "1"]
        assert module.main(command_line(data, server.url, *flags)) == 0
        rows = read_rows(data.parent / "run" / "predictions.jsonl")
        assert [row.get("error", {}).get("type") for row in rows] == ["server_refused"] * 2 + [None] * 2
        assert len(server.asked) == 4
        # Finished: what was refused is the row's own, and nothing is asked.
        assert module.main(command_line(data, server.url, *flags)) == 0
        assert len(server.asked) == 4
        server.models = ["another"]
        capsys.readouterr()
        assert module.main(command_line(data, server.url, *flags, "--retry-errors")) == 2
        assert "model m then, another now" in capsys.readouterr().err
        assert len(server.asked) == 4
        server.models = ["m"]
        assert module.main(command_line(data, server.url, *flags, "--retry-errors")) == 0
        assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"vocab_size": LARGE_VOCABULARY}, LONGEST_SECTION),
        ({"text_config": {"vocab_size": LARGE_VOCABULARY + 1}}, None),
        ({}, None),
    ],
)
def test_sections_are_bounded_where_counting_is_cheap(
    config: Row, longest: int | None, data: Path, hollow_checkpoint: Path
) -> None:
    (hollow_checkpoint / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", **config}))
    options = [
        "--checkpoint",
        str(hollow_checkpoint),
        "--data",
        str(data),
        "--output-dir",
        "o",
        "--constrain",
    ]
    assert make_asking(make_plan(parse_arguments(options, description=""))).longest_section == longest
