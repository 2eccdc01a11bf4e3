"""The kinds of file that this repository reads: what tells them apart, their rules, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import row_checks
from row_checks import Faults, Row, text_of
from vecbench_layouts import Entry, read_lines, read_metadata_csv, read_std_json, recognise

from emocaliber.jsonl import RecordError
from emocaliber.response import SECTIONS

KINDS = {
    "records": "records, questions for inference",
    "predictions": "predictions, records with what the model answered",
    "captions": "chats for ms-swift without the grammar of answers, such as captions",
    "stage1_chats": "chats for ms-swift, stage 1: answers without a confidence",
    "stage2_chats": "chats for ms-swift, stage 2: answers with a confidence",
    "rl_chats": "chats for ms-swift's GRPO: a question, the truth and the candidates",
    "verl_parquet": "Parquet for verl's GRPO",
    "reward_log": "the reward log of a stage-3 run",
    "scenes": "what the pictures of VECBench-mini show",
    "left_out": "a list of rows that were left out, each with its reason",
    "std_json": "VECBench as {id: {image_path, prompt, ground_truth, other_info}}",
    "metadata_csv": "VECBench as a table with image_path, task, label, split",
}
REMEDIES = {
    "not_json": "write one JSON object a line, in UTF-8",
    "not_an_object": "write one JSON object a line",
    "other_kind": "keep rows of one kind in a file",
    "bad_id": "make it a text or a whole number, or leave it out",
    "repeated_id": "make ids unique",
    "not_answered": "run the same inference command again: it goes on where it stopped",
    "bad_images": "name one image for each <image> of the messages",
    "sections": f"fill {', '.join(SECTIONS)}, in that order, in one <think>",
    "answer": "end with <answer>label</answer>, a label of the candidates",
    "answer_not_truth": "a stage-1 chain concludes with the row's ground_truth: correct one of them",
    "confidence": "end with <confidence>0.85</confidence>, a number from 0 to 1",
    "not_a_rollout": "give the rewards.jsonl of a stage-3 run as it was written",
    "wrong_columns": "give every row as many fields as the header",
    "columns": "make the file by data/build_rl_parquet.py",
    "image_missing": "set --image-root to what image paths are relative to",
}
_MARKS = {"conversations": "a record", "messages": "a chat", "scene": "a scene", "truth": "a rollout"}
FAMILIES = {
    **dict.fromkeys(("records", "predictions"), "a record"),
    **dict.fromkeys(("captions", "stage1_chats", "stage2_chats", "rl_chats"), "a chat"),
    **{"scenes": "a scene", "reward_log": "a rollout", "left_out": "a row left out"},
    "verl_parquet": "a row of verl",
}
"""What rows of one file have in common, whatever else is wrong with them."""


def kind_of(row: Row) -> str | None:
    """The kind that a row of JSON lines looks like, None for none."""
    if "conversations" in row:
        has_answer = any(row.get(name) is not None for name in ("response", "error", "samples"))
        return "predictions" if has_answer else "records"
    if {"response", "truth", "score"} <= row.keys():
        return "reward_log"
    if {"where", "reason"} <= row.keys():
        return "left_out"
    if "scene" in row:
        return "scenes"
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return None
    if messages[-1].get("role") != "assistant":
        return "rl_chats"
    answer = text_of(messages[-1])
    if "<answer>" not in answer and "<think>" not in answer:
        return "captions"
    return "stage2_chats" if "<confidence>" in answer else "stage1_chats"


def family_of(row: Row) -> str:
    """The family that a row looks like, "" for none."""
    return next((family for name, family in _MARKS.items() if name in row), "")


def kind_of_file(rows: Iterable[Row]) -> str | None:
    """The kind of most rows; a file with one answered record holds predictions."""
    counts = Counter(kind for kind in map(kind_of, rows) if kind is not None)
    if counts["predictions"]:
        counts["predictions"] += counts.pop("records", 0)
    return counts.most_common(1)[0][0] if counts else None


CHECKS: dict[str, Callable[[Row], Faults]] = {
    "records": row_checks.check_record,
    "predictions": row_checks.check_prediction,
    "captions": row_checks.check_chat,
    "stage1_chats": row_checks.check_stage1_chat,
    "stage2_chats": row_checks.check_stage2_chat,
    "rl_chats": row_checks.check_rl_chat,
    "verl_parquet": row_checks.check_verl_row,
    "reward_log": row_checks.check_rollout,
    "scenes": row_checks.check_scene,
    "left_out": lambda row: iter(()),
}

_LOOKED_AT = 100
# A run without a failure leaves these empty.
_LEFT_OUT = ("rejected", "noted", "leaks", "duplicates", "left_out", "unreadable", "differences")
_EMPTY = {"error.jsonl": "predictions"} | {f"{name}.jsonl": "left_out" for name in _LEFT_OUT}
_PARQUET_COLUMNS = ("data_source", "prompt", "images", "reward_model", "extra_info")
_ROWS_AT_ONCE = 16  # with their pictures


def find_kind(path: Path, columns: Mapping[str, str]) -> str:
    """Tell the kind of a file by its content. Raises RecordError where it is of none, or unreadable."""
    if _is_parquet(path):
        return "verl_parquet"
    layout, why = recognise(path, columns)
    if layout in ("std_json", "metadata_csv"):
        return layout
    if why == "empty" and path.name in _EMPTY:
        return _EMPTY[path.name]
    rows = [entry.content for entry in islice(read_lines(path), _LOOKED_AT) if entry.content is not None]
    kind = kind_of_file(rows)
    if kind is None:
        seen = f"its first row has {', '.join(list(rows[0])[:8])}" if rows else why
        raise RecordError(
            f"{path}: of no kind that this repository reads ({seen}); see --help, or say --kind"
        )
    return kind


def read_rows(path: Path, kind: str, columns: Mapping[str, str]) -> Iterator[Entry]:
    """Yield the rows of a file of that kind, one after the other. Raises RecordError if it is unreadable."""
    if kind == "verl_parquet":
        return _read_parquet(path)
    if kind == "metadata_csv":
        return read_metadata_csv(path, columns)
    return read_std_json(path) if kind == "std_json" else read_lines(path)


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); give a readable file") from None


def _read_parquet(path: Path) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            absent = [name for name in _PARQUET_COLUMNS if name not in file.schema_arrow.names]
            if absent:
                raise RecordError(f"{path}: no column {absent[0]!r}; make it by data/build_rl_parquet.py")
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(_PARQUET_COLUMNS)):
                for row in batch.to_pylist():
                    number += 1
                    yield Entry(f"{path}: row {number}", row)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecordError(f"{path}: not whole Parquet after row {number} ({reason}); make it anew") from None
