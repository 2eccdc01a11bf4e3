"""Rows of data and predictions: read and validate them, give them ids, merge answers into them."""

import hashlib
import json
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from typing import Any

from emocaliber.jsonl import JsonlAppender as JsonlAppender
from emocaliber.jsonl import PathLike, read_jsonl_with_faults
from emocaliber.jsonl import RecordError as RecordError
from emocaliber.jsonl import read_jsonl as read_jsonl
from emocaliber.jsonl import write_jsonl_atomic as write_jsonl_atomic
from emocaliber.jsonl import write_text_atomic as write_text_atomic
from emocaliber.taxonomy import canonical_task, match_label, normalise_label

Record = dict[str, Any]
RECORD_INVALID = "record_invalid"
"""The error type of a row that stands for a line of the data that is no valid record."""
UNREADABLE_TASK = "invalid record"
"""The task of a row whose own cannot be read."""
shown = reprlib.Repr()
"""Shows a value of any size on one short line."""
shown.maxstring = shown.maxother = 80
_SUM_TOLERANCE = 1e-3  # the probabilities may have been rounded
_MOST_VOTES = 1e15  # beyond this a float no longer tells whole numbers apart
_DEEPEST = 100  # levels: what can just be parsed could not be written again from deeper in a program
_LONGEST_NAME = 1000  # of an id or a task that an invalid row keeps
_LONGEST_MESSAGE = 400


class Unusable(Exception):
    """A row that some work cannot use: `reason` is what it is counted under, the text says more."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_records(*paths: PathLike, need_truth: bool = True) -> list[Record]:
    """Read all rows of files, see `iterate_records`."""
    return list(iterate_records(*paths, need_truth=need_truth))


def iterate_records(*paths: PathLike, need_truth: bool = True) -> Iterator[Record]:
    """Read and validate rows one by one; each has its own fields, an `id`, and the task's table name.

    A row without an `id` gets one from its content, so that a test file and the predictions made from it
    agree. Such a row may be repeated within a file, not in another file: the two would hold the same
    predictions. `need_truth=False` accepts rows without `ground_truth`; otherwise a row may lack it only
    where `posterior` or `votes` are in its place. Raises RecordError.
    """
    return (record for _, record in iterate_with_places(*paths, need_truth=need_truth, allow_invalid=False))


def iterate_with_places(
    *paths: PathLike, need_truth: bool = True, allow_invalid: bool = True, keep_tasks: bool = False
) -> Iterator[tuple[str, Record]]:
    """Read rows as `iterate_records` does, each with its place, `FILE:LINE`, for messages about it.

    `allow_invalid`: a row that says of itself that it is no valid record (`is_invalid_record`) is given as
    it is: predictions hold such rows, and have to count them. `keep_tasks`: a task is spelt as in the file.
    """
    seen: dict[str, tuple[PathLike, int]] = {}
    for path in paths:
        repeats: Counter[str] = Counter()
        for number, record in read_jsonl(path):
            where = f"{path}:{number}"
            try:
                if not (allow_invalid and is_invalid_record(record)):
                    validate_record(record, need_truth=need_truth)
            except RecordError as error:
                raise RecordError(f"{where}: {error}") from None
            row = _named(record, repeats, keep_task=keep_tasks)
            place = (path, number)
            first = seen.setdefault(row["id"], place)
            if first is not place:  # equal for a file that is given twice
                remedy = "make ids unique"
                if record.get("id") is None:
                    remedy = "give each row in one file only, or give repeats ids of their own"
                also = f"{where}: id {shown.repr(row['id'])} is also that of {first[0]}:{first[1]}"
                raise RecordError(f"{also}; {remedy}")
            yield where, row


def _named(record: Record, repeats: Counter[str], *, keep_task: bool = False) -> Record:
    """Give a sound row its task's table name, or the written one, and an id, from its content if need be."""
    named = {**record, "task": canonical_task(record["task"])}
    row = record if keep_task else named
    if record.get("id") is not None:
        return {**row, "id": str(record["id"])}
    identity = content_id(named)
    repeats[identity] += 1
    return {**row, "id": identity if repeats[identity] == 1 else f"{identity}-{repeats[identity]}"}


def validate_record(record: Mapping[str, Any], *, need_truth: bool) -> None:
    """Raise RecordError with the first of the `faults` of a row."""
    for _, message in faults(record, need_truth=need_truth):
        raise RecordError(message)


def faults(record: Mapping[str, Any], *, need_truth: bool = True) -> Iterator[tuple[str, str]]:
    """Yield (reason, message) of everything that keeps a row from being a valid record.

    need_truth: a row needs a `ground_truth`, or a `posterior` or `votes` in its place. What it has of these
    is to be sound in any case.
    """
    identity = record.get("id")
    if isinstance(identity, bool) or not isinstance(identity, str | int | None):
        yield "bad_id", f"id is {shown.repr(identity)}; make it a text or a whole number, or leave it out"
    if identity == "":
        yield "bad_id", "id is empty; leave it out to have one derived"
    if not isinstance(record.get("task"), str) or not record["task"].strip():
        yield "no_task", "no task; give its name, such as EmoSet-8 (names of your own are allowed)"
    yield from faults_of_truth(record, need_truth=need_truth)
    try:
        record_images(record)
    except RecordError as error:
        yield "no_image", str(error)
    question = "conversations ask nothing; put the question in as a text item of a user message"
    try:
        if not record_text(record).strip():
            yield "no_question", question
    except RecordError as error:
        yield "no_question", str(error)
    if not isinstance(record.get("response"), str | None):
        yield "bad_response", f"response is {shown.repr(record['response'])}; make it the text of the model"


def faults_of_truth(record: Mapping[str, Any], *, need_truth: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the faults of the candidates and of what is said to be true of them."""
    try:
        candidates = record_candidates(record)
    except RecordError as error:
        yield "candidates", str(error)
        return
    truth = record.get("ground_truth")
    missing = "no ground_truth; give the true label, one of the candidates, or its posterior or votes"
    try:
        if soft_truth(record, tuple(candidates)) is None and truth is None and need_truth:
            yield "no_truth", missing
    except RecordError as error:
        yield "soft_truth", str(error)
    is_known = isinstance(truth, str) and (truth in candidates or match_label(truth, candidates) is not None)
    if truth is not None and not is_known:
        named = f"ground_truth {shown.repr(truth)} is not among the candidates {shown.repr(candidates)}"
        yield "truth_not_a_candidate", f"{named}; correct one of them"


def record_candidates(record: Mapping[str, Any]) -> list[str]:
    """Give the candidate labels of a row. Raises RecordError if they are missing or not told apart."""
    if "candidates" not in record:
        raise RecordError("no candidates; give the list of labels to choose from")
    candidates = record["candidates"]
    if not isinstance(candidates, list) or not candidates:
        raise RecordError(f"candidates is {shown.repr(candidates)}; make it a list of at least one label")
    if all(isinstance(candidate, str) for candidate in candidates) and _are_told_apart(tuple(candidates)):
        return list(candidates)
    forms: set[str] = set()
    for candidate in candidates:
        form = normalise_label(candidate) if isinstance(candidate, str) else ""
        if not form:
            raise RecordError(f"candidates hold {shown.repr(candidate)}; make every one a word")
        if form in forms:
            raise RecordError(f"candidates hold {shown.repr(candidate)} twice; name each label once")
        forms.add(form)
    return list(candidates)


@lru_cache(maxsize=256)
def _are_told_apart(candidates: tuple[str, ...]) -> bool:
    """Is every label a word, and no two the same; rows repeat the same few lists."""
    forms = {normalise_label(candidate) for candidate in candidates}
    return len(forms) == len(candidates) and "" not in forms


def record_images(record: Mapping[str, Any]) -> list[str]:
    """Give the image paths of a row, relative to the data root, from `images`, `image` or the messages.

    Raises RecordError if there is none.
    """
    images = record.get("images") or record.get("image")
    if not images:
        images = [item.get("image") for item in _content_items(record) if item.get("type") == "image"]
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images:
        raise RecordError("no image; give its path as `image` or as an image item of conversations")
    for image in images:
        if not isinstance(image, str) or not image.strip():
            raise RecordError(f"an image is {shown.repr(image)}; make it a path relative to the data root")
    return images


def record_text(record: Mapping[str, Any]) -> str:
    """Give what the user messages of a row ask, without the images. Raises RecordError."""
    texts = [item.get("text") for item in _content_items(record) if item.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def _content_items(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the content items of the user messages; a message that is a plain text is one text item."""
    messages = record.get("conversations")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RecordError("no conversations; give a list of chat messages with `role` and `content`")
    items: list[Mapping[str, Any]] = []
    for message in messages:
        content = message.get("content")
        if message.get("role") == "user" and isinstance(content, str):
            items.append({"type": "text", "text": content})
        elif message.get("role") == "user" and isinstance(content, list):
            items.extend(item for item in content if isinstance(item, dict))
    return items


def content_id(record: Mapping[str, Any]) -> str:
    """Give an id that depends on what is asked only: not on the answer, the truth or the place."""
    parts = [record_images(record), record["task"], record_text(record), record["candidates"]]
    digest = hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
    return f"{record['task']}-{digest[:16]}"


def soft_truth(record: Mapping[str, Any], candidates: tuple[str, ...]) -> dict[str, float] | None:
    """Give the probability of every candidate, in their order; None where the record does not say.

    A posterior is taken as written, so that it sums to 1 within rounding; votes are divided by their sum.
    Null and an empty object say nothing. Raises RecordError for what is neither, and for both at once.
    """
    posterior, votes = record.get("posterior"), record.get("votes")
    if votes is None or votes == {}:
        return None if posterior is None or posterior == {} else _from_posterior(posterior, candidates)
    if posterior is None or posterior == {}:
        return _from_votes(votes, candidates)
    raise RecordError("posterior and votes are both there; keep the one that is the truth")


def most_probable(distribution: Mapping[str, float]) -> str:
    """Give the label of the largest probability; of equal ones, the first in the order of the candidates."""
    return max(distribution, key=distribution.__getitem__)


def _from_posterior(written: Any, candidates: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(written, dict):
        raise RecordError("posterior is not an object; make it label -> probability, or leave it out")
    # Most name exactly the candidates; reading a million of these one by one takes ten seconds.
    values: list[Any] = list(map(written.get, candidates))
    is_plain = len(written) == len(values) and set(map(type, values)) == {float}
    if is_plain and min(values) >= 0 and max(values) <= 1 and _sums_to_one(math.fsum(values)):
        return dict(zip(candidates, values, strict=True))
    posterior = _by_candidate(written, candidates, 1, "posterior gives", "the probability ", "[0, 1]")
    total = math.fsum(posterior.values())
    if not _sums_to_one(total):
        raise RecordError(f"posterior sums to {total:.6g}, not 1; correct it, or leave it out")
    return {label: posterior.get(label, 0.0) for label in candidates}


def _from_votes(written: Any, candidates: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(written, dict):
        raise RecordError("votes is not an object; make it label -> number of raters, or leave it out")
    wanted = "numbers of raters, 0 or more"
    votes = _by_candidate(written, candidates, _MOST_VOTES, "votes give", "", wanted)
    total = math.fsum(votes.values())
    if not total:
        raise RecordError("votes sum to 0; give at least one rater's vote, or leave them out")
    return {label: votes.get(label, 0.0) / total for label in candidates}


def _by_candidate(
    written: Mapping[str, Any], candidates: tuple[str, ...], most: float, given: str, what: str, wanted: str
) -> dict[str, float]:
    """Read label -> number in [0, `most`]; the texts are for what is raised of anything else."""
    found: dict[str, float] = {}
    for name, value in written.items():
        label = name if name in candidates else match_label(name, candidates)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if label is None or not is_number or not 0 <= value <= most:
            number = repr(value)
            number = number if len(number) <= 40 else f"{number[:40]}…"
            raise RecordError(f"{given} {name!r} {what}{number}; use candidates and {wanted}")
        if label in found:
            raise RecordError(f"{given} {label!r} twice, once as {name!r}; name each label once")
        found[label] = float(value)
    return found


def _sums_to_one(total: float) -> bool:
    return round(abs(total - 1), 9) <= _SUM_TOLERANCE


def is_invalid_record(record: Mapping[str, Any]) -> bool:
    """Does a row stand for a line that is no valid record: an error of that type, an id, a task, no more?"""
    error = record.get("error")
    return (
        isinstance(error, dict)
        and error.get("type") == RECORD_INVALID
        and all(isinstance(record.get(name), str) and record[name].strip() for name in ("id", "task"))
    )


def read_records_keeping_invalid(path: PathLike) -> list[Record]:
    """Read a file as `read_records(path, need_truth=False)` does, but give a row for every line.

    A line that is no valid record (not JSON, wrong types, no image, an id given before, …) gives a row with
    an `error` {"type": "record_invalid", "message": where and why}, with those of its fields that are valid
    by themselves, and with its own id where it has one that no other row has, else `line-<number>`. Valid
    rows have their ids before invalid ones; of two valid rows with one id, the first.
    Raises RecordError for a file that cannot be read.
    """
    rows: dict[int, Record] = {}
    invalid: dict[int, tuple[Record, str]] = {}
    line_of_id: dict[str, int] = {}
    repeats: Counter[str] = Counter()
    for number, line in read_jsonl_with_faults(path):
        if isinstance(line, RecordError):
            invalid[number] = {}, str(line)
            continue
        try:
            row = _valid_row(line, repeats)
            first = line_of_id.setdefault(row["id"], number)
            if first != number:
                raise RecordError(f"its id is also that of line {first}; make ids unique")
            rows[number] = row
        except RecordError as error:
            invalid[number] = line, f"{path}:{number}: {error}"
    for number, (line, reason) in invalid.items():
        identity = _free_id(line, number, line_of_id)
        line_of_id[identity] = number
        rows[number] = _invalid_row(line, identity, reason)
    return [rows[number] for number in sorted(rows)]


def _valid_row(record: Record, repeats: Counter[str]) -> Record:
    if _is_too_deep(record, _DEEPEST):
        raise RecordError(f"nested more than {_DEEPEST} levels deep; flatten it")
    validate_record(record, need_truth=False)
    return _named(record, repeats)


def _free_id(record: Record, number: int, taken: Container[str]) -> str:
    own = record.get("id")
    if isinstance(own, int) and not isinstance(own, bool):
        own = str(own)
    if isinstance(own, str) and own.strip() and len(own) <= _LONGEST_NAME and own not in taken:
        return own
    name = f"line-{number}"
    return next(free for n in count(1) if (free := name if n == 1 else f"{name}-{n}") not in taken)


def _invalid_row(record: Record, identity: str, reason: str) -> Record:
    reason = reason if len(reason) <= _LONGEST_MESSAGE else f"{reason[: _LONGEST_MESSAGE - 1]}…"
    task = record.get("task")
    is_readable = isinstance(task, str) and task.strip() and len(task) <= _LONGEST_NAME
    return {
        "id": identity,
        **_valid_fields(record),
        "task": canonical_task(str(task)) if is_readable else UNREADABLE_TASK,
        "error": {"type": RECORD_INVALID, "message": reason},
    }


def _valid_fields(record: Record) -> Record:
    """Give the fields that are valid by themselves, of those that say what was asked and what is true."""

    def truth(one: Record) -> None:
        if not isinstance(written := one["ground_truth"], str) or not match_label(written, candidates):
            raise RecordError("not a candidate")

    kept: Record = {}
    candidates: tuple[str, ...] = ()
    checks: dict[str, Callable[[Record], Any]] = {
        "image": record_images,
        "images": record_images,
        "conversations": record_text,
        "candidates": record_candidates,
        "ground_truth": truth,
        "posterior": lambda one: soft_truth(one, candidates),
        "votes": lambda one: soft_truth(one, candidates),
    }
    for name, check in checks.items():
        one = {name: record.get(name)}
        if one[name] is None or _is_too_deep(one, _DEEPEST):
            continue
        try:
            check(one)
        except RecordError:
            continue
        kept |= one
        if name == "candidates":
            candidates = tuple(record["candidates"])
    return kept


def _is_too_deep(value: Any, levels: int) -> bool:
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return levels == 0 or any(_is_too_deep(one, levels - 1) for one in inside)
    return False


def merge_by_id(inputs: Iterable[Record], outputs: Iterable[Record]) -> list[Record]:
    """Put outputs onto the inputs of the same id, in the order of the inputs, each exactly once.

    An input without an output comes back without `response` and `error`. Of several outputs of one row
    a response goes before an error, then the last one counts. Raises RecordError for an output without an
    input.
    """
    best: dict[str, Record] = {}
    for output in outputs:
        known = best.get(output["id"])
        if known is None or output.get("error") is None or known.get("error") is not None:
            best[output["id"]] = output
    merged = []
    for record in inputs:
        asked = {name: value for name, value in record.items() if name not in ("response", "error")}
        merged.append({**asked, **best.pop(record["id"], {})})
    if best:
        first = shown.repr(next(iter(best)))
        raise RecordError(
            f"row {first}: an output of other data than these inputs; start a new output folder"
        )
    return merged
