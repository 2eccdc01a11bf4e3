"""The page of an evaluation: `report.html`, one file that a browser shows without any network.

What a model, a data set or a user wrote is only ever data in it: the JSON blocks cannot end their elements,
the script puts texts into the page as texts, and the page's policy runs no other script than its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from emocaliber.images import to_rgb
from emocaliber.jsonl import PathLike, RecordError, write_text_atomic
from emocaliber.records import record_candidates, record_images
from emocaliber.report.tables import CONFIDENCE_TITLES, OVERALL
from emocaliber.response import SECTIONS, parse
from emocaliber.scoring import ScoredRow, response_of

MOST_ROWS = 20_000
"""A browser holds this many well; a page of more responses would be hundreds of MB."""

SMALL_SIDE_PIXELS = 96
"""The longest side of a picture on the page."""
_LARGE_SIDE_PIXELS = 256
_FEW_ROWS = 2000  # up to here a page of larger pictures stays below some 30 MB


PageRow = Mapping[str, Any]
"""A row as the page shows it: `_SHOWN`, `image`, `response` and `error`; what is missing is shown as missing.

`image` is a path relative to the image root. `status`: `answered`, `unparsed`, `failed`. The reasons and
flags are those of `emocaliber.response.ParsedResponse`. `posterior` is the true distribution over the
candidates, where it is known.
"""
_READ = ("label", "confidence", "label_reason", "confidence_reason", "flags")
_SHOWN = ("id", "task", "candidates", "truth", "correct", "status", "posterior", *_READ)


def page_row(row: ScoredRow, record: Mapping[str, Any]) -> PageRow:
    """Put a scored row together with what its record holds: the response, or the error (text or object)."""
    response = record.get("response")
    if response is None:
        response = response_of(record)
    return {
        **{name: getattr(row, name) for name in _SHOWN},
        "image": (row.image_key or "").split("\n")[0] or None,
        "response": response if isinstance(response, str) else None,
        "error": _error_text(record),
    }


def prediction_row(record: Mapping[str, Any]) -> PageRow:
    """Read a record with a `response` or an `error` as the page shows it, whatever else it lacks."""
    candidates = _or_none(record_candidates, record) or []
    images = _or_none(record_images, record) or [None]
    response = response_of(record)
    parsed = None if response is None else parse(response, candidates)
    return {
        "id": str(record.get("id", "")),
        "task": str(record.get("task", "")),
        "image": images[0],
        "candidates": candidates,
        "truth": None,
        "status": "failed" if parsed is None else "unparsed" if parsed.label is None else "answered",
        "response": response,
        "error": _error_text(record),
        **({} if parsed is None else {name: getattr(parsed, name) for name in _READ}),
    }


def _error_text(record: Mapping[str, Any]) -> str | None:
    error = record.get("error")
    if isinstance(error, Mapping):
        error = ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))
    return None if error is None else str(error)


def _or_none(read: Callable[[Mapping[str, Any]], Any], record: Mapping[str, Any]) -> Any:
    try:
        return read(record)
    except RecordError:
        return None


def write_page(
    path: PathLike,
    metrics: Mapping[str, Any],
    rows: Iterable[PageRow],
    *,
    title: str,
    image_root: Path | None,
    has_truth: bool = True,
    longest_side: int = SMALL_SIDE_PIXELS,
) -> None:
    """Write the page: afterwards the file holds all of it, or what it held before.

    Args:
        metrics: the content of `metrics.json`; of everything in it, anything may be missing or null.
        rows: in the order in which the page lists them.
        title: the name of the run.
        image_root: what the rows' images are relative to, to put small copies of them into the page; nothing
            outside it is read, and an image that cannot be read has none. None for no copies.
        has_truth: False for rows of which no truth is known: a page without numbers, truths and verdicts.
        longest_side: of the copies, in pixels.
    """
    listed = list(rows)
    wanted = [row.get("image") for row in listed]
    pictures: list[str] = []
    places: list[int | None] = [None] * len(listed)
    if image_root is not None:
        pictures, places = thumbnails_of(wanted, image_root, longest_side)
    content = {"title": title, "has_truth": has_truth, **numbers(metrics), **packed_rows(listed, places)}
    write_text_atomic(path, _filled(title, content, pictures))


def write_prediction_page(
    path: PathLike,
    records: Sequence[Mapping[str, Any]],
    *,
    title: str,
    image_root: Path | None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page: afterwards the file holds all of it, or what it held before.

    Args:
        path: of the page, one file that needs no network.
        records: with a `response` or an `error` each; no truth is looked for.
        title: the name of the run.
        image_root: as `emocaliber.report.page.write_page` has it.
        facts: what else the head of the page says of the run, by name.
    """
    rows = [prediction_row(record) for record in records[:MOST_ROWS]]
    status = Counter(row["status"] for row in rows)
    counts = {"n": len(rows), **{name: status[name] for name in ("answered", "unparsed", "failed")}}
    warnings = []
    if len(records) > MOST_ROWS:
        warnings = [f"Only the first {MOST_ROWS:,} of {len(records):,} rows are on this page."]
    write_page(
        path,
        {
            **(facts or {}),
            "overall": {"samples": counts},
            "tasks": {row["task"]: {} for row in rows},
            "warnings": warnings,
        },
        rows,
        title=title,
        image_root=image_root,
        has_truth=False,
        longest_side=_LARGE_SIDE_PIXELS if len(rows) <= _FEW_ROWS else SMALL_SIDE_PIXELS,
    )


_NOT_SHOWN = {"thresholds"}  # of a summary
_NOT_FACTS = {
    *("overall", "groups", "tasks", "warnings", "unit"),
    *("paper", "protocol_difference", "samples"),  # in the logs and metrics.json
    "confidences",  # a table of its own
}
_MOST_CURVE_POINTS = 400
# Of a number: rounded far beyond the four that the page shows, so that it shows the same as the log.
_DIGITS = 12


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of metrics.json; tasks and groups as lists, which keep their order."""
    facts = [[str(key), _fact(value)] for key, value in metrics.items() if key not in _NOT_FACTS]
    groups = _mapping(metrics.get("groups"))
    tasks = _mapping(metrics.get("tasks"))
    return {
        "facts": facts,
        "warnings": [str(text) for text in metrics.get("warnings") or ()],
        "tasks": [{"name": str(name), "samples": _summary(task)} for name, task in tasks.items()],
        "groups": [{"name": str(name), **_pooled(group)} for name, group in groups.items()],
        "overall": {"name": OVERALL, **_pooled(metrics.get("overall"))},
        "confidences": _compared(_mapping(metrics.get("confidences"))),
    }


def _compared(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores of several confidences on the same rows: of each task, of each group, of all."""
    overall = _mapping(content.get("overall"))
    sets = [("task", name, one) for name, one in _mapping(content.get("tasks")).items()]
    sets += [("group", name, one) for name, one in _mapping(content.get("groups")).items()]
    sets += [("overall", OVERALL, overall)] if overall else []
    return [
        {
            "kind": kind,
            "name": str(name),
            "n": _plain(_mapping(one).get("n")),
            "confidences": [
                {"title": CONFIDENCE_TITLES.get(key, str(key)), "samples": _summary(scores)}
                for key, scores in _mapping(_mapping(one).get("confidences")).items()
            ],
        }
        for kind, name, one in sets
    ]


def _fact(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(one, str | int | float) for one in value):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(one)}" for key, one in value.items())
    return json.dumps(_plain(value))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pooled(value: Any) -> dict[str, Any]:
    pooled = _mapping(value)
    return {
        "tasks": [str(name) for name in pooled.get("tasks") or ()],
        "samples": _summary(pooled.get("samples")),
        "task_mean": _plain(_mapping(pooled.get("task_mean"))),
    }


def _summary(value: Any) -> dict[str, Any]:
    summary = {str(key): _plain(one) for key, one in _mapping(value).items() if key not in _NOT_SHOWN}
    curve = summary.get("risk_coverage") or []
    if len(curve) > _MOST_CURVE_POINTS:
        last = len(curve) - 1
        steps = _MOST_CURVE_POINTS - 1
        summary["risk_coverage"] = [curve[round(i * last / steps)] for i in range(steps + 1)]
    return summary


def packed_rows(rows: Sequence[Mapping[str, Any]], thumbnails: Sequence[int | None]) -> dict[str, Any]:
    """The rows, each with the place of its thumbnail; a list of candidates that many share is there once."""
    sets: dict[tuple[str, ...], int] = {}
    packed = []
    for row, thumbnail in zip(rows, thumbnails, strict=True):
        candidates = tuple(str(one) for one in row.get("candidates") or ())
        number = sets.setdefault(candidates, len(sets))
        packed.append(_row(row, candidates) | {"candidates": number, "thumbnail": thumbnail})
    return {"candidate_sets": list(sets), "rows": packed}


def _row(row: Mapping[str, Any], candidates: Sequence[str]) -> dict[str, Any]:
    confidence = row.get("confidence")
    response = row.get("response")
    posterior = _mapping(row.get("posterior"))
    return {
        **{key: str(row.get(key) or "") for key in ("id", "task", "status")},
        **{
            key: None if row.get(key) is None else str(row[key])
            for key in ("image", "truth", "label", "label_reason", "confidence_reason", "response", "error")
        },
        "confidence": None if confidence is None else _plain(float(confidence)),
        "correct": bool(row.get("correct")),
        "flags": sorted(str(flag) for flag in row.get("flags") or ()),
        "posterior": [_plain(posterior.get(one, 0.0)) for one in candidates] if posterior else None,
        "steps": _steps(response, candidates) if isinstance(response, str) else None,
    }


def _steps(response: str, candidates: Sequence[str]) -> list[list[int] | None]:
    """Where in the response each step of the reasoning stands, in UTF-16 units, as JavaScript counts.

    The response is in the page already: the places cost a few bytes, the texts again would double its size.
    """
    reasoning = parse(response, candidates).reasoning
    places: list[list[int] | None] = []
    for name in SECTIONS:
        text = reasoning.get(name)
        start = response.find(text) if text else -1
        ends = (start, start + len(text or ""))
        units = [len(response[:end].encode("utf-16-le", "surrogatepass")) // 2 for end in ends]
        places.append(units if start >= 0 else None)
    return places


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers are rounded, those that JSON lacks become null."""
    text = json.dumps(value, default=float)
    return json.loads(
        text, parse_float=lambda digits: round(float(digits), _DIGITS), parse_constant=lambda _: None
    )


_JPEG_QUALITY = 60
_MOST_THREADS = 8
_MOST_PIXELS = 50_000_000  # of an image: decoded, as many take 200 MB in each thread


def thumbnails_of(
    images: Sequence[Any], root: Path, longest_side: int = SMALL_SIDE_PIXELS
) -> tuple[list[str], list[int | None]]:
    """Make one thumbnail a file.

    Args:
        images: paths relative to `root`; anything but a text stands for no image.
        root: nothing outside it is read, wherever a path or a link leads.
        longest_side: of a thumbnail, in pixels.
    Returns:
        The thumbnails as base64 JPEG, and for every image its place among them: None where there is no image,
        it is not a file below `root`, it cannot be read, or it has more than 50 million pixels.
    """
    inside = root.resolve()
    files = [_file_below(inside, image) for image in images]
    distinct = list(dict.fromkeys(file for file in files if file is not None))
    with warnings.catch_warnings(), ThreadPoolExecutor(_MOST_THREADS) as pool:
        warnings.simplefilter("ignore")  # of Pillow, of a size that is refused here
        made = dict(zip(distinct, pool.map(partial(_thumbnail, longest_side), distinct), strict=True))
    places = {file: number for number, file in enumerate(file for file in distinct if made[file] is not None)}
    pictures = [text for file in distinct if (text := made[file]) is not None]
    return pictures, [None if file is None else places.get(file) for file in files]


def _file_below(root: Path, image: Any) -> Path | None:
    if not isinstance(image, str) or not image:
        return None
    try:
        file = (root / image).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL or a lone surrogate in it, a loop of links
        return None


def _thumbnail(longest_side: int, file: Path) -> str | None:
    from PIL import Image, ImageOps

    size = (longest_side, longest_side)
    try:
        with Image.open(file) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.draft("RGB", size)  # a large JPEG is decoded at a fraction of its size
            small = to_rgb(ImageOps.exif_transpose(image))
            small.thumbnail(size)
            buffer = io.BytesIO()
            small.save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    except Exception:  # a decoder that is fed damaged bytes may raise anything
        return None
    return base64.b64encode(buffer.getvalue()).decode("ascii")


_ASSETS = "page_assets"
_SCRIPTS = ("dom.js", "tables.js", "charts.js", "confusion.js", "filters.js", "samples.js", "start.js")
_NUMBERS = re.compile(r"<!-- numbers -->\n(.*?)<!-- end of numbers -->\n", re.DOTALL)


def _filled(title: str, content: Mapping[str, Any], pictures: Sequence[str]) -> str:
    script = "(() => {\n" + "\n".join(_asset(name) for name in _SCRIPTS) + "})();\n"
    style = _asset("style.css")
    parts = {
        "title": html.escape("".join(c if c.isprintable() else "\ufffd" for c in title)),
        "policy": _policy(script, style),
        "style": style,
        "script": script,
        "content": _embedded(content),
        "thumbnails": _embedded(pictures),
    }
    template = re.sub(_NUMBERS, r"\1" if content["has_truth"] else "", _asset("template.html"))
    # One pass, so that nothing in a part is taken for the name of another.
    return re.sub(r"@@(\w+)@@", lambda match: parts[match[1]], template)


def _asset(name: str) -> str:
    return (resources.files(__package__) / _ASSETS / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Only this script and this style, images from inside the file, and no text that becomes markup."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _embedded(content: Any) -> str:
    """JSON for a script element: no markup characters, and ASCII, so that a lone surrogate is an escape."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
