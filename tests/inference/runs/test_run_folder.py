import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emocaliber.records import RecordError
from inference.runs import run_folder as module
from inference.runs.run_folder import RunFolder, compare

IDENTITY = {"seed": 0, "temperature": 0.7}
RUN = {"identity": IDENTITY, "attempts": [{"status": "running"}]}
ROWS = [{"id": name, "task": "EmoSet-8"} for name in "abc"]


def opened(path: Path, **options: Any) -> RunFolder:
    folder = RunFolder(path)
    folder.open(
        {**RUN, "attempts": [{"status": "running", "arguments": {}}]},
        overwrite=options.pop("overwrite", False),
    )
    return folder


def answer(name: str, text: str = "awe") -> dict[str, Any]:
    return {"id": name, "response": text, "finish_reason": "stop"}


def error(name: str, type: str) -> dict[str, Any]:
    return {"id": name, "error": {"type": type, "message": "so it is"}}


def mistake(call: Callable[[], object]) -> str:
    with pytest.raises(RecordError) as caught:
        call()
    return str(caught.value)


def test_differences_are_named_with_hashes_shortened() -> None:
    before = {"data": "a" * 64, "limit": None, "seed": 0, "same": 1}
    now = {"data": "b" * 64, "limit": 5, "same": 1}
    assert compare(before, now) == [
        "data aaaaaaaaaaaa then, bbbbbbbbbbbb now",
        "limit None then, 5 now",
        "seed 0 then, None now",
    ]
    assert compare(before, now, {"data": "/a.jsonl"}, {"data": "/b.jsonl"})[0] == (
        "data /a.jsonl (aaaaaaaaaaaa) then, /b.jsonl (bbbbbbbbbbbb) now"
    )


def test_a_run_writes_its_files_in_the_order_of_the_data(
    tmp_path: Path, read_rows: Callable[[Path], list[Any]]
) -> None:
    folder = opened(tmp_path / "run")
    assert folder.gather(retry_errors=False) == {}
    with folder.appender() as appender:
        for row in (answer("c"), error("b", "image_missing"), answer("a")):
            appender.write(row)
    n_responses, errors = folder.finish(ROWS)
    assert (n_responses, dict(errors)) == (2, {"image_missing": 1})
    predictions = read_rows(tmp_path / "run" / "predictions.jsonl")
    assert [row["id"] for row in predictions] == ["a", "b", "c"]
    assert all(row["task"] == "EmoSet-8" for row in predictions)
    assert read_rows(tmp_path / "run" / "error.jsonl") == [predictions[1]]
    assert read_rows(tmp_path / "run" / "merged.jsonl") == predictions
    assert sorted(path.name for path in (tmp_path / "run").glob("partial*")) == []


def test_rows_of_every_earlier_start_are_gathered(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    for worker, name in ((None, "a"), (0, "b"), (3, "c")):
        with folder.appender(worker) as appender:
            appender.write(answer(name))
    with open(folder.part(3), "ab") as file:
        file.write(b'{"id": "torn", "respon')
    folder.close()
    folder = opened(tmp_path)
    assert set(folder.gather(retry_errors=False)) == {"a", "b", "c"}
    assert [path.name for path in tmp_path.glob("partial*")] == ["partial.jsonl"]
    assert set(folder.read_done()) == {"a", "b", "c"}


def test_a_finished_run_is_gathered_from_its_predictions(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    with folder.appender() as appender:
        appender.write(answer("a"))
    folder.finish(ROWS[:1])
    assert folder.gather(retry_errors=False) == {"a": answer("a")}


@pytest.mark.parametrize(
    ("retry_errors", "kept"), [(False, {"answered", "image_missing"}), (True, {"answered"})]
)
def test_which_errors_are_kept(retry_errors: bool, kept: set[str], tmp_path: Path) -> None:
    folder = opened(tmp_path)
    with folder.appender() as appender:
        appender.write(answer("answered"))
        appender.write(error("image_missing", "image_missing"))
        appender.write(error("request_refused", "request_refused"))  # the engine's doing: asked again
    assert set(folder.gather(retry_errors=retry_errors)) == kept


def test_a_response_after_an_error_of_a_finished_start_counts(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    with folder.appender() as appender:
        appender.write(error("a", "image_missing"))
        appender.write(error("b", "image_missing"))
    folder.finish(ROWS[:2])
    folder.gather(retry_errors=True)
    with folder.appender() as appender:  # and here the second start is killed
        appender.write(answer("a"))
    assert folder.gather(retry_errors=False) == {"a": answer("a"), "b": error("b", "image_missing")}


def test_a_server_with_another_model_is_refused(tmp_path: Path) -> None:
    for model, is_refused in (("A", False), ("A", False), ("B", True), ("A", False)):
        folder = opened(tmp_path)
        folder.attempt["engine_arguments"] = {"model": model}
        if is_refused:
            assert "model A then, B now" in mistake(folder.check_model)
        else:
            folder.check_model()
        folder.write_run()
        folder.close()


@pytest.mark.parametrize(
    ("rows", "requests", "cost"),
    [
        ([(100, 10), (200, 20)], None, 0.00066),  # 300 tokens at 2 and 30 at 2 a million
        ([(100, 10), (200, None)], None, None),
        # What the server counted and no row shows was paid for as well.
        ([(100, 10), (200, 20)], {"prompt_tokens": 1300, "response_tokens": 30}, 0.00266),
    ],
)
def test_what_a_start_cost(
    rows: list[tuple[int, int | None]], requests: Any, cost: float | None, tmp_path: Path
) -> None:
    folder = opened(tmp_path)
    folder.attempt["arguments"] = {"price_in": 2, "price_out": 2}
    if requests is not None:
        folder.attempt["requests"] = requests
    with folder.appender() as appender:
        for name, (n_in, n_out) in zip("ab", rows, strict=True):
            counts = {"n_prompt_tokens": n_in} | ({} if n_out is None else {"n_response_tokens": n_out})
            appender.write(answer(name) | counts)
    folder.close_attempt("finished", ())
    assert folder.attempt["cost"] == cost
    assert folder.attempt.get("cost_per_1000_rows") == (None if cost is None else round(500 * cost, 6))


def test_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = RunFolder(tmp_path)
    other.check(IDENTITY, overwrite=False)
    message = mistake(lambda: other.check({**IDENTITY, "temperature": 0.2}, overwrite=False))
    assert message == (
        f"{tmp_path}: holds a run with other arguments: temperature 0.7 then, 0.2 now; "
        "give the same arguments, another --output-dir, or --overwrite"
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    other.check({}, overwrite=True)


def test_predictions_of_an_unknown_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "merged.jsonl").write_text("{}\n")
    assert "holds merged.jsonl of an unknown run (no run.json)" in mistake(
        lambda: RunFolder(tmp_path).check(IDENTITY, overwrite=False)
    )


def test_an_unreadable_run_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    message = mistake(lambda: RunFolder(tmp_path).check(IDENTITY, overwrite=False))
    assert message == f"{tmp_path / 'run.json'}: not readable; use --overwrite or another --output-dir"


def test_overwrite_discards_rows_and_earlier_starts(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    with folder.appender(1) as appender:
        appender.write(answer("a"))
    folder.finish(ROWS[:1])
    folder.close()
    (tmp_path / "notes.txt").write_text("mine")
    folder = opened(tmp_path, overwrite=True)
    assert folder.gather(retry_errors=False) == {}
    assert len(folder.run["attempts"]) == 1
    assert not (tmp_path / "predictions.jsonl").exists()
    assert (tmp_path / "notes.txt").exists()


def test_what_a_killed_start_was_writing_is_removed(tmp_path: Path) -> None:
    opened(tmp_path).close()
    for name in (".merged.jsonl.0123abcd.tmp", ".run.json.89abcdef.tmp", ".notes.jsonl.89abcdef.tmp"):
        (tmp_path / name).write_text("half")
    opened(tmp_path).close()
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".notes.jsonl.89abcdef.tmp"]


def test_starts_are_counted(tmp_path: Path) -> None:
    for number in range(1, 3):
        folder = opened(tmp_path)
        folder.gather(retry_errors=False)
        folder.close_attempt("finished", ())
        folder.close()
        run = json.loads((tmp_path / "run.json").read_text())
        assert [attempt["status"] for attempt in run["attempts"]] == ["finished"] * number


def test_rates_are_of_the_rows_that_this_start_added(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    with folder.appender() as appender:
        for name in "abc":
            appender.write(answer(name) | {"n_prompt_tokens": 10, "n_response_tokens": 5})
    gpus = {"0": {"utilisation_percent": 50.0, "memory_mib": 1.0}}
    folder.close_attempt("interrupted", {"a"}, first_row_s=1.234, generate_s=4.0, gpus=gpus)
    names = ("status", "rows_done_before", "rows_done", "first_row_s", "generate_s", "gpus")
    assert [folder.attempt[name] for name in names] == ["interrupted", 1, 2, 1.23, 4.0, gpus]
    rates = [folder.attempt[f"{name}_per_s"] for name in ("rows", "prompt_tokens", "response_tokens")]
    assert rates == [0.5, 5.0, 2.5]


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    folder = opened(tmp_path)
    assert "another run is writing there" in mistake(lambda: opened(tmp_path))
    folder.close()
    opened(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = mistake(lambda: RunFolder(tmp_path / "file" / "run").check(IDENTITY, overwrite=False))
    assert message == f"{tmp_path / 'file' / 'run'}: cannot be written; give another --output-dir"
