"""Ten thousand records that nobody should have to read: each ends as a response or a named error.

EMOCALIBER_HOSTILE_ROWS=10000 takes as many through the engine too, instead of 2,000.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hostile_images
import hostile_records
import pytest

from emocaliber.records import is_invalid_record, read_jsonl, read_records_keeping_invalid
from inference.backends.backend import Asking, Refusal
from inference.backends.prepare import ChatTokenizer, Preparer, Request

N_GOOD = 8
N_THROUGH_THE_ENGINE = int(os.environ.get("EMOCALIBER_HOSTILE_ROWS", "2000"))


def save_data(folder: Path, n: int) -> Path:
    """Save images and n hostile lines between a few good ones; gives the data file."""
    names = hostile_images.save_images(folder)
    lines = hostile_records.Generator(names).lines(n)
    good = [json.dumps(hostile_records.good_row(f"good-{number}")).encode() for number in range(N_GOOD)]
    path = folder / "hostile.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in (*good[: N_GOOD // 2], *lines, *good[N_GOOD // 2 :])))
    return path


def preparer_for(checkpoint: Path, image_root: Path) -> Preparer:
    tokenizer = ChatTokenizer(str(checkpoint))
    (image_token,) = tokenizer.encode_text("<|image_pad|>")
    (video_token,) = tokenizer.encode_text("<|video_pad|>")
    return Preparer(
        tokenizer.encode,
        Asking(image_root, 3136, 12544, temperature=0, top_p=1, max_new_tokens=9),
        image_token_id=image_token,
        forbidden_token_ids=frozenset([video_token]),
        factor=28,
        max_model_len=3000,
    )


def prepare_all(data: Path, n: int, checkpoint: Path) -> Counter[str]:
    """Read and prepare every line; gives how many ended as what."""
    rows = read_records_keeping_invalid(data)
    assert len(rows) == n + N_GOOD
    assert len({row["id"] for row in rows}) == len(rows)
    ends = Counter(row["error"]["type"] for row in rows if is_invalid_record(row))
    valid = [row for row in rows if not is_invalid_record(row)]
    preparer = preparer_for(checkpoint, data.parent)

    def render(request: Request) -> tuple[None, int]:
        return None, request.n_image_tokens

    for row, outcome in zip(valid, preparer.prepare_ahead(valid, render, threads=2, ahead=16), strict=True):
        assert outcome.id == row["id"]
        ends[outcome.type if isinstance(outcome, Refusal) else "request"] += 1
        if isinstance(outcome, Refusal):
            assert "\n" not in outcome.message and len(outcome.message) < 1000
        if row["id"].startswith("good-"):
            assert isinstance(outcome, Request)
    return ends


def test_a_few_hundred_end_as_requests_or_named_errors(tmp_path: Path, checkpoint: Path) -> None:
    ends = prepare_all(save_data(tmp_path, 400), 400, checkpoint)
    assert ends["request"] > N_GOOD
    assert set(ends) == {"request", *hostile_records.ERROR_TYPES}  # each type of error is really met


@pytest.mark.slow
def test_ten_thousand_end_as_requests_or_named_errors(tmp_path: Path, checkpoint: Path) -> None:
    started = time.monotonic()
    ends = prepare_all(save_data(tmp_path, 10_000), 10_000, checkpoint)
    seconds, peak_mb = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{sum(ends.values())} rows in {seconds:.0f} s, at most {peak_mb:.0f} MB: {dict(ends)}")
    assert sum(ends.values()) == 10_000 + N_GOOD
    assert set(ends) == {"request", *hostile_records.ERROR_TYPES}
    assert peak_mb < 4000


@pytest.mark.slow
def test_thousands_through_the_engine(
    tmp_path: Path,
    root: Path,
    checkpoint: Path,
    infer: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    data, run = save_data(tmp_path / "data", N_THROUGH_THE_ENGINE), tmp_path / "run"
    limits = ("--min-pixels", 3136, "--max-pixels", 12544, "--max-new-tokens", 4, "--temperature", 0)
    done = infer("--checkpoint", checkpoint, "--data", data, "--output-dir", run, *limits, "--keep-invalid")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [row for _, row in read_jsonl(run / "predictions.jsonl")]
    assert [row["id"] for row in rows] == [row["id"] for row in read_records_keeping_invalid(data)]
    ends: Counter[str] = Counter()
    for row in rows:
        assert ("error" in row) != isinstance(row.get("response"), str), row["id"]
        ends[row["error"]["type"] if "error" in row else "response"] += 1
    print(done.stderr[-1500:], dict(ends))
    assert set(ends) == {"response", *hostile_records.ERROR_TYPES}
    assert all("response" in row for row in rows if row["id"].startswith("good-"))
    evaluate = [sys.executable, str(root / "inference" / "evaluate.py"), "--draws", "0", "--no-figures"]
    files = ["--predictions", str(run / "predictions.jsonl"), "--output-dir", str(tmp_path / "scores")]
    scored = subprocess.run([*evaluate, *files], capture_output=True, text=True, timeout=300)
    assert scored.returncode == 0, scored.stderr[-3000:]
    counts = json.loads((tmp_path / "scores" / "metrics.json").read_text())["overall"]["samples"]
    assert counts["n"] == len(rows) == counts["answered"] + counts["unparsed"] + counts["failed"]
    assert counts["failed"] == len(rows) - ends["response"]
    assert counts["failed_reasons"] == {type: n for type, n in ends.items() if type != "response"}
