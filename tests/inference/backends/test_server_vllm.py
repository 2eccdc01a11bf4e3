"""The mini model behind vLLM's own server: the same texts as in this process, the token counts expected."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vllm_server import MAX_PIXELS, MIN_PIXELS, MINI, vllm_server

from emocaliber.response import parse
from inference.backends.backend import Answer, EngineError
from inference.backends.server import ServerBackend
from inference.runs.arguments import parse_arguments
from inference.runs.plan import make_plan

pytestmark = pytest.mark.slow

Row = dict[str, Any]
SIZES = [(112, 112), (168, 112), (640, 480), (40, 40)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm_server(tmp_path_factory.mktemp("server") / "server.log") as (address, _):
        yield address


@pytest.fixture(scope="module")
def rows(
    tmp_path_factory: pytest.TempPathFactory,
    make_row: Callable[..., Row],
    draw: Callable[[int, int, int], Image.Image],
    write_rows: Callable[[Path, Sequence[Row]], Path],
) -> tuple[Path, list[Row]]:
    folder = tmp_path_factory.mktemp("rows")
    rows = []
    for number in range(16):
        draw(number, *SIZES[number % 4]).save(folder / f"{number}.png")
        rows.append(make_row(f"r{number}", f"{number}.png"))
    return write_rows(folder / "test.jsonl", rows), rows


def ask(url: str, rows: tuple[Path, list[Row]], **asking: Any) -> dict[str, Answer]:
    options = ["--backend", "server", "--server-url", url, "--checkpoint", str(MINI), "--data", str(rows[0])]
    options += ["--min-pixels", str(MIN_PIXELS), "--max-pixels", str(MAX_PIXELS), "--output-dir", "o"]
    plan = make_plan(parse_arguments([*options, "--timeout-s", "300"], description=""))
    settings = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 256} | asking
    backend = ServerBackend(plan.settings, replace(plan.asking, **settings))
    assert backend.model == MINI.name
    came = [outcome for outcome in backend.answers(rows[1]) if outcome is not None]
    assert all(isinstance(outcome, Answer) for outcome in came), came
    answers = {outcome.id: outcome for outcome in came if isinstance(outcome, Answer)}
    assert answers.keys() == {row["id"] for row in rows[1]} and len(came) == 16
    assert backend.counts["by_outcome"] == {"200": 16}
    assert backend.counts["response_tokens"] == sum(answer.n_response_tokens or 0 for answer in came)
    return answers


def test_greedily_it_gives_what_this_process_gives(
    url: str,
    rows: tuple[Path, list[Row]],
    infer: Callable[..., subprocess.CompletedProcess[str]],
    read_rows: Callable[[Path], list[Row]],
    tmp_path: Path,
) -> None:
    answers = ask(url, rows)
    # By hand: 112 x 112, and 640 x 480 shrunk to 112 x 84, 168 x 112 to 112 x 84, 40 x 40 grown to 56 x 56.
    assert [answers[f"r{number}"].n_image_tokens for number in range(4)] == [16, 12, 12, 4]
    assert all(parse(answer.response, rows[1][0]["candidates"]).label for answer in answers.values())
    arguments = ["--checkpoint", MINI, "--data", rows[0], "--output-dir", tmp_path / "run"]
    arguments += ["--min-pixels", MIN_PIXELS, "--max-pixels", MAX_PIXELS, "--temperature", 0]
    run = infer(*arguments, "--top-p", 1, "--max-new-tokens", 256)
    assert run.returncode == 0, run.stderr[-3000:]
    here = {row["id"]: row for row in read_rows(tmp_path / "run" / "predictions.jsonl")}
    assert {row["n_prompt_tokens"] for row in here.values()} <= {
        answer.n_prompt_tokens for answer in answers.values()
    }
    for identity, answer in answers.items():
        assert (answer.n_prompt_tokens, answer.n_image_tokens) == (
            here[identity]["n_prompt_tokens"],
            here[identity]["n_image_tokens"],
        )
        # Floats that were rounded to bytes in between may turn a choice; the images of this size were not.
        if SIZES[int(identity[1:]) % 4] == (112, 112):
            assert answer.response == here[identity]["response"]


def test_constrained_every_sample_parses(url: str, rows: tuple[Path, list[Row]]) -> None:
    asking = {"constrain": True, "temperature": 1.5, "n_samples": 3, "max_new_tokens": 1500}
    for answer in ask(url, rows, **asking).values():
        assert answer.samples is not None and len(answer.samples) == 3
        for text in answer.samples:
            parsed = parse(text, rows[1][0]["candidates"])
            assert parsed.label is not None and parsed.confidence is not None and not parsed.flags


def test_a_server_with_other_pixel_limits_stops_the_run(url: str, rows: tuple[Path, list[Row]]) -> None:
    with pytest.raises(EngineError, match=r"prompt tokens, the checkpoint and the pixel limits imply"):
        ask(url, rows, min_pixels=MAX_PIXELS)
