"""infer.py without an engine: a user's mistakes, runs whose engine fails or is stopped, and a server's."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server
from PIL import Image

from emocaliber.provenance import file_sha256
from emocaliber.records import JsonlAppender
from inference import infer as module
from inference.backends.backend import Answer, EngineError, Refusal
from inference.runs.plan import Plan
from inference.runs.run_folder import RunFolder

Row = dict[str, Any]

pytestmark = pytest.mark.usefixtures("own_signals")


@pytest.fixture
def data(tmp_path: Path, make_row: Callable[..., Row], write_rows: Callable[..., Path]) -> Path:
    Image.new("RGB", (112, 112)).save(tmp_path / "a.png")
    return write_rows(tmp_path / "test.jsonl", [make_row(f"r{number}", "a.png") for number in range(6)])


@pytest.fixture
def arguments(data: Path, hollow_checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    return {"--checkpoint": hollow_checkpoint, "--data": data, "--output-dir": tmp_path / "run"}


def command_line(arguments: dict[str, Any], *flags: str) -> list[str]:
    return [str(part) for pair in arguments.items() for part in pair] + list(flags)


def mistake(arguments: dict[str, Any], capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Run with a mistake in the arguments; gives the one line, without its "error: "."""
    assert module.main(command_line(arguments, *flags)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    return captured.err.removeprefix("error: ").rstrip("\n")


def test_a_missing_data_file(arguments: dict[str, Any], capsys: Any) -> None:
    arguments["--data"] = arguments["--data"].with_name("gone.jsonl")
    assert mistake(arguments, capsys) == (
        f"{arguments['--data']}: cannot be read (No such file or directory); "
        "give a readable file of JSON lines"
    )
    assert not arguments["--output-dir"].exists()


def test_a_line_that_is_not_json(arguments: dict[str, Any], capsys: Any) -> None:
    with open(arguments["--data"], "a") as file:
        file.write('{"id": "r6", \n')
    message = mistake(arguments, capsys)
    assert message.startswith(f"{arguments['--data']}:7: not JSON (")
    assert not arguments["--output-dir"].exists()


def test_a_record_without_candidates(
    arguments: dict[str, Any], make_row: Callable[..., Row], write_rows: Callable[..., Path], capsys: Any
) -> None:
    rows = [make_row("r0", "a.png"), make_row("r1", "a.png")]
    del rows[1]["candidates"]
    write_rows(arguments["--data"], rows)
    assert mistake(arguments, capsys) == (
        f"{arguments['--data']}:2: no candidates; give the list of labels to choose from"
    )
    assert not arguments["--output-dir"].exists()


def test_a_data_file_without_rows(arguments: dict[str, Any], capsys: Any) -> None:
    arguments["--data"].write_text("\n")
    assert mistake(arguments, capsys) == f"{arguments['--data']}: no rows; give a file of JSON lines"


def test_a_checkpoint_without_weights(arguments: dict[str, Any], capsys: Any) -> None:
    (arguments["--checkpoint"] / "model.safetensors").unlink()
    assert mistake(arguments, capsys) == (
        f"{arguments['--checkpoint']}: no weights (*.safetensors); "
        "training has not finished or they were not copied"
    )
    assert not arguments["--output-dir"].exists()


def test_a_missing_image_root(arguments: dict[str, Any], capsys: Any) -> None:
    assert (
        mistake({**arguments, "--image-root": "/gone"}, capsys) == "/gone: no such folder; check --image-root"
    )


def test_more_positions_than_the_checkpoint_has(arguments: dict[str, Any], capsys: Any) -> None:
    (arguments["--checkpoint"] / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    message = mistake({**arguments, "--max-model-len": 513}, capsys)
    assert message == f"--max-model-len 513: {arguments['--checkpoint']} has 512 positions; lower it"


def test_an_output_folder_that_cannot_be_written(arguments: dict[str, Any], capsys: Any) -> None:
    arguments["--output-dir"] = arguments["--data"] / "run"
    assert mistake(arguments, capsys) == (
        f"{arguments['--output-dir']}: cannot be written; give another --output-dir"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-pixels", "9", "--max-pixels", "8"], "--min-pixels 9 is above --max-pixels 8"),
        (["--limit", "0"], "argument --limit: 0 is not above 0"),
        (["--temperature", "-1"], "argument --temperature: -1 is not a number from 0 on"),
        (["--temperature", "nan"], "argument --temperature: nan is not a number from 0 on"),
        (["--top-p", "0"], "argument --top-p: 0 is not above 0 and at most 1"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], message: str, arguments: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        module.main([*command_line(arguments), *options])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {message}; see --help\n"


def test_mistakes_are_told_before_anything_heavy_is_imported(
    arguments: dict[str, Any], infer_command: Callable[..., list[str]]
) -> None:
    arguments["--data"].unlink()
    python, *rest = infer_command(*command_line(arguments))
    run = subprocess.run([python, "-X", "importtime", *rest], capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    imported = set(re.findall(r"\|\s*([\w]+)$", run.stderr, re.MULTILINE))
    assert "argparse" in imported
    assert not imported & {"torch", "vllm", "transformers", "numpy"}


class FakeEngine:
    """Answers each row by its id; after `n_answers` it fails for good, or sends this process a signal."""

    arguments: Row = {}  # noqa: RUF012

    def __init__(self, image: Path, n_answers: int, unlucky: int = 0, signal: int = 0) -> None:
        self.image = image
        self.n_answers = n_answers
        self.signal = signal
        self.unlucky = unlucky
        self.asked: list[str] = []

    def answers(self, records: Iterable[Row]) -> Generator[Answer | Refusal | None]:
        for row in records:
            if len(self.asked) == self.n_answers and self.signal:
                os.kill(os.getpid(), self.signal)
            elif len(self.asked) == self.n_answers:
                raise EngineError("the engine failed: out of memory")
            self.asked.append(row["id"])
            if row["id"] == "r1":
                yield Refusal("r1", "image_missing", "no file")
            elif row["id"] == "r2" and self.asked.count("r2") <= self.unlucky:
                yield Refusal("r2", "request_refused", "not now")
            else:
                sums = [file_sha256(self.image)]
                yield Answer(row["id"], f"answer to {row['id']}", "stop", 16, 40, 3, images_sha256=sums)


@pytest.fixture
def engine_with(data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeEngine]:
    def put(n_answers: int, unlucky: int = 0, signal: int = 0) -> FakeEngine:
        engine = FakeEngine(data.parent / "a.png", n_answers, unlucky, signal)
        monkeypatch.setattr(Plan, "start_backend", lambda plan: engine)
        return engine

    return put


def statuses(folder: Path) -> list[str]:
    return [attempt["status"] for attempt in json.loads((folder / "run.json").read_text())["attempts"]]


def test_an_engine_that_fails_leaves_the_finished_rows(
    arguments: dict[str, Any],
    engine_with: Callable[..., FakeEngine],
    read_rows: Callable[[Path], list[Row]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = arguments["--output-dir"]
    engine_with(3)
    assert module.main(command_line(arguments)) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "3 of 6 rows are on disk; the same command continues",
        "error: the engine failed: out of memory",
    ]
    assert not (folder / "predictions.jsonl").exists()
    engine = engine_with(100)
    assert module.main(command_line(arguments)) == 0
    assert engine.asked == ["r3", "r4", "r5"]
    rows = read_rows(folder / "predictions.jsonl")
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(6)]
    assert [row.get("response") for row in rows] == [
        None if number == 1 else f"answer to r{number}" for number in range(6)
    ]
    assert statuses(folder) == ["failed", "finished"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_the_same_command_continues(
    number: int,
    status: int,
    arguments: dict[str, Any],
    engine_with: Callable[..., FakeEngine],
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine_with(3, signal=number)
    assert module.main(command_line(arguments)) == status
    assert capsys.readouterr().err.splitlines()[-1] == (
        "interrupted: 4 of 6 rows are on disk; the same command continues"
    )
    engine = engine_with(100)
    assert module.main(command_line(arguments)) == 0
    assert engine.asked == ["r4", "r5"]
    assert statuses(arguments["--output-dir"]) == ["interrupted", "finished"]


def test_a_row_at_fault_stays_an_error_until_it_is_retried(
    arguments: dict[str, Any], engine_with: Callable[..., FakeEngine]
) -> None:
    engine_with(100)
    assert module.main(command_line(arguments)) == 0
    for flags, asked in (((), []), (("--retry-errors",), ["r1"])):
        engine = engine_with(100)
        assert module.main(command_line(arguments, *flags)) == 0
        assert engine.asked == asked


@pytest.mark.parametrize(("unlucky", "asked_later"), [(1, []), (2, ["r2"])])
def test_a_failure_that_is_not_the_rows_own_is_asked_again_at_the_end_and_by_the_next_start(
    unlucky: int,
    asked_later: list[str],
    arguments: dict[str, Any],
    engine_with: Callable[..., FakeEngine],
    read_rows: Callable[[Path], list[Row]],
) -> None:
    engine = engine_with(100, unlucky)
    assert module.main(command_line(arguments)) == 0
    assert engine.asked == ["r0", "r1", "r2", "r3", "r4", "r5", "r2"]
    row = read_rows(arguments["--output-dir"] / "predictions.jsonl")[2]
    assert row.get("error") == ({"type": "request_refused", "message": "not now"} if asked_later else None)
    engine = engine_with(100)
    assert module.main(command_line(arguments)) == 0
    assert engine.asked == asked_later


def test_too_many_failures_end_the_run(
    arguments: dict[str, Any], engine_with: Callable[..., FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    engine = engine_with(100)
    assert module.main(command_line({**arguments, "--max-failures": 0})) == 1
    assert engine.asked == ["r0", "r1"]
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "2 of 6 rows are on disk; the same command continues",
        "error: 1 rows have an error, more than --max-failures 0; see the last lines of partial*.jsonl, "
        "mend their cause and continue with --retry-errors",
    ]
    assert module.main(command_line({**arguments, "--max-failures": 1}, "--retry-errors")) == 0


def test_other_arguments_are_refused_with_the_difference(
    arguments: dict[str, Any],
    engine_with: Callable[..., FakeEngine],
    make_row: Callable[..., Row],
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine_with(100)
    assert module.main(command_line(arguments)) == 0
    before = {path: path.read_bytes() for path in arguments["--output-dir"].iterdir()}
    capsys.readouterr()
    message = mistake({**arguments, "--temperature": 0.2, "--seed": 4}, capsys)
    assert message == (
        f"{arguments['--output-dir']}: holds a run with other arguments: seed 0 then, 4 now; "
        "temperature 0.7 then, 0.2 now; give the same arguments, another --output-dir, or --overwrite"
    )
    write_rows(arguments["--data"], [make_row("other", "a.png")])
    assert ": data " in mistake(arguments, capsys)
    assert {path: path.read_bytes() for path in arguments["--output-dir"].iterdir()} == before
    engine = engine_with(100)
    assert module.main(command_line(arguments, "--overwrite")) == 0
    assert engine.asked == ["other"]
    assert statuses(arguments["--output-dir"]) == ["finished"]


def test_images_that_change_after_their_rows_are_answered_are_refused(
    arguments: dict[str, Any], engine_with: Callable[..., FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    image, folder = arguments["--data"].parent / "a.png", arguments["--output-dir"]
    engine_with(3)  # r0, then r1 that has no file, then r2
    assert module.main(command_line(arguments)) == 1
    with (folder / "partial.jsonl").open("a") as rows:
        rows.write('{"id": "r3", "resp')  # torn by a crash
    before = {path: path.read_bytes() for path in folder.iterdir()}
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    capsys.readouterr()
    assert mistake(arguments, capsys) == (
        "2 rows were answered with other images than are there now, the first is 'r0' (a.png); put the "
        "images back, give another --output-dir, or --overwrite"
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    image.write_bytes(content)
    engine = engine_with(100)
    assert module.main(command_line(arguments)) == 0
    assert engine.asked == ["r3", "r4", "r5"]
    image.unlink()  # what has been answered needs its image no more
    assert module.main(command_line(arguments)) == 0
    image.write_bytes(content + b"\0")
    capsys.readouterr()
    assert mistake(arguments, capsys).startswith("5 rows were answered with other images")
    engine = engine_with(100)
    assert module.main(command_line(arguments, "--overwrite")) == 0
    assert len(engine.asked) == 6


def test_what_the_machine_does_may_change_between_starts(
    arguments: dict[str, Any], engine_with: Callable[..., FakeEngine]
) -> None:
    engine_with(2)
    assert module.main(command_line(arguments)) == 1
    engine = engine_with(100)
    assert module.main(command_line({**arguments, "--batch-size": 3}, "--verbose")) == 0
    assert len(engine.asked) == 4


def test_a_run_without_a_single_response_is_a_failure(
    arguments: dict[str, Any], engine_with: Callable[..., FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = arguments["--data"].read_text().splitlines(keepends=True)
    arguments["--data"].write_text(rows[1])
    engine_with(100)
    assert module.main(command_line(arguments)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: no row has a response; mend what error.jsonl names, then add --retry-errors"
    )
    assert (arguments["--output-dir"] / "predictions.jsonl").exists()


def test_run_json_says_what_was_run(
    arguments: dict[str, Any], engine_with: Callable[..., FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    engine_with(100)
    assert module.main(command_line(arguments, "--limit", "4")) == 0
    text = (arguments["--output-dir"] / "run.json").read_text()
    assert "hf_secret_of_mine" not in text
    run = json.loads(text)
    assert run["result"] == {"rows": 4, "responses": 3, "errors": {"image_missing": 1}}
    assert run["data"]["rows"] == 4
    assert run["model"]["files_bytes"]["tokenizer.json"] == 2
    assert run["identity"]["temperature"] == 0.7
    attempt = run["attempts"][0]
    assert attempt["arguments"]["max_new_tokens"] == 1024
    assert (attempt["rows_done"], attempt["prompt_tokens"], attempt["response_tokens"]) == (4, 120, 9)
    assert attempt["versions"]["python"]


def test_images_larger_than_the_checkpoint_knows_are_warned_of(
    arguments: dict[str, Any], engine_with: Callable[..., FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"size": {"shortest_edge": 3136, "longest_edge": 12544}}
    (arguments["--checkpoint"] / "preprocessor_config.json").write_text(json.dumps(own))
    engine_with(100)
    assert module.main(command_line(arguments)) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        f"warning: every image will have at least 200704 pixels; {arguments['--checkpoint']} was made for "
        "at most 12544 (see --min-pixels, --max-pixels)"
    )


def test_a_full_disk_is_named_and_the_rows_before_it_stay(
    arguments: dict[str, Any],
    engine_with: Callable[..., FakeEngine],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class FullDisk(JsonlAppender):
        def write(self, row: Any) -> None:
            if row["id"] == "r3":
                raise OSError(28, "No space left on device")
            super().write(row)

    engine_with(100)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "appender", lambda self: FullDisk(self.part()))
        assert module.main(command_line(arguments)) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "3 of 6 rows are on disk; the same command continues",
        "error: No space left on device",
    ]
    engine = engine_with(100)
    assert module.main(command_line(arguments)) == 0
    assert engine.asked == ["r3", "r4", "r5"]


ANSWER = "<answer>awe</answer><confidence>0.7</confidence>"


@pytest.fixture
def questions(tmp_path: Path, make_row: Callable[..., Row], write_rows: Callable[..., Path]) -> Path:
    Image.new("RGB", (112, 112)).save(tmp_path / "a.png")
    rows = [make_row(f"r{number}", "a.png", f"question {number}") for number in range(4)]
    return write_rows(tmp_path / "test.jsonl", rows)


def asking_a_server(questions: Path, url: str, *flags: str) -> list[str]:
    folder = str(questions.parent / "run")
    return [
        "--backend",
        "server",
        "--server-url",
        url,
        "--data",
        str(questions),
        "--output-dir",
        folder,
        *flags,
    ]


def attempts(questions: Path) -> list[Row]:
    found: list[Row] = json.loads((questions.parent / "run" / "run.json").read_text())["attempts"]
    return found


def test_run_json_says_what_the_server_was_sent_and_what_it_cost(
    questions: Path, read_rows: Callable[[Path], list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-indeed")
    with chat_server(lambda text, before: 429 if text == "question 1" and before < 2 else ANSWER) as server:
        assert (
            module.main(asking_a_server(questions, server.url, "--price-in", "10", "--price-out", "0")) == 0
        )
    assert set(server.keys) == {"Bearer sk-very-secret-indeed"}
    assert "very-secret" not in (questions.parent / "run" / "run.json").read_text()
    (attempt,) = attempts(questions)
    assert attempt["requests"]["requests"] == 6
    assert attempt["requests"]["by_outcome"] == {"200": 4, "429": 2}
    assert attempt["engine_arguments"]["model"] == "m"
    assert attempt["cost"] == pytest.approx(4 * 100 * 10 / 1e6)
    assert [row["response"] for row in read_rows(questions.parent / "run" / "predictions.jsonl")] == [
        ANSWER
    ] * 4


def test_refused_rows_are_kept_and_another_model_is_not_mixed_in(
    questions: Path, capsys: pytest.CaptureFixture[str], read_rows: Callable[[Path], list[Row]]
) -> None:
    def reply(text: str, before: int) -> str | int:
        return 400 if text in ("question 0", "question 1") else ANSWER

    with chat_server(reply) as server:
        flags = ["--batch-size", "1"]
        assert module.main(asking_a_server(questions, server.url, *flags)) == 0
        rows = read_rows(questions.parent / "run" / "predictions.jsonl")
        assert [row.get("error", {}).get("type") for row in rows] == ["server_refused"] * 2 + [None] * 2
        assert len(server.asked) == 4
        # Finished: what was refused is the row's own, and nothing is asked.
        assert module.main(asking_a_server(questions, server.url, *flags)) == 0
        assert len(server.asked) == 4
        server.models = ["another"]
        capsys.readouterr()
        assert module.main(asking_a_server(questions, server.url, *flags, "--retry-errors")) == 2
        assert "model m then, another now" in capsys.readouterr().err
        assert len(server.asked) == 4
        server.models = ["m"]
        assert module.main(asking_a_server(questions, server.url, *flags, "--retry-errors")) == 0
        assert len(server.asked) == 6
