"""Builds one more benchmark with soft truth from its release, Emotion6 or MultiEmo-Bench: test records, sums.

    python data/build_benchmark.py --benchmark emotion6 --raw /raw/Emotion6 --output-dir data/Emotion6
    python data/build_benchmark.py --benchmark multiemo --raw /raw/MultiEmo --output-dir data/MultiEmo \\
        --table votes.csv --image-column file --labels joy=Joy_count anger=Anger_count …

Emotion6 (Peng et al. 2015): rows of image, valence, arousal and the probabilities of --labels in that order,
below one header line; `posterior` is the probabilities divided by their sum. MultiEmo-Bench: a table with a
column of images and one of votes per label; a rater may name several, so that shares are of votes, not of
raters. Neither release was at hand. Uncertain, and so settings: the table's name, separator, columns and
their order, where images lie, how far from 1 probabilities may sum, and all about MultiEmo's labels.

Writes test.jsonl, whose images are images/DATASET/…, a link to the release; rejected.jsonl (where, reason,
message), all that is left out; and, last, manifest.json. An interrupted build goes on from scan.jsonl. One
more benchmark is a line in BENCHMARKS and a reader of its rows.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.raw.outputs import place_images
from data.raw.readers import check_outside, path_inside
from data.raw.scan import SCAN, scan
from data.raw.usable import Listing
from emocaliber.command_line import CommandParser, run_command
from emocaliber.image_scan import CAN_GO_ON, WORKERS, ImageMemory
from emocaliber.jsonl import RecordError, write_jsonl_atomic, write_text_atomic
from emocaliber.prompts import conversation
from emocaliber.provenance import commit, file_sha256, installed_versions
from emocaliber.records import Unusable, record_candidates
from emocaliber.taxonomy import MIKELS_8

RowReader = Callable[[Sequence[str]], dict[str, Any]]
"""Turns the cells of a row into `image`, as the table names it, and fields of the record. Raises Unusable."""


@dataclass(frozen=True)
class Benchmark:
    """A data set, its published rows, its table and labels unless set otherwise, and how a row is read."""

    dataset: str
    n_rows: int
    table: str
    labels: tuple[str, ...]
    reader: Callable[[Sequence[str], argparse.Namespace], RowReader]


def emotion6(header: Sequence[str], args: argparse.Namespace) -> RowReader:
    """Read rows by the places of cells. Raises RecordError if the header names labels in another order."""
    words = re.findall(r"\w+", " ".join(header).casefold())
    named = [word for word in words if word in map(str.casefold, args.labels.values())]
    if named and named != [name.casefold() for name in args.labels.values()]:
        raise RecordError(f"{args.table}:1: the header names {' '.join(named)}; give that order as --labels")

    def read(cells: Sequence[str]) -> dict[str, Any]:
        n_cells = 3 + len(args.labels)
        if len(cells) < n_cells or any(cells[n_cells:]):  # lines may end in a separator
            raise Unusable("bad_row", f"{len(cells)} cells, not {n_cells}")
        valence, arousal, *shares = map(number_in, cells[1:n_cells])
        if min(shares) < 0 or max(shares) > 1:
            raise Unusable("bad_number", f"probabilities from {min(shares):g} to {max(shares):g}")
        total = math.fsum(shares)
        if not total or abs(total - 1) > args.sum_tolerance + 1e-9:
            raise Unusable("bad_sum", f"sum {total:.6g}, not 1 within {args.sum_tolerance:g}")
        posterior = {label: share / total for label, share in zip(args.labels, shares, strict=True)}
        return {"image": cells[0], "posterior": posterior, "valence": valence, "arousal": arousal}

    return read


def multiemo(header: Sequence[str], args: argparse.Namespace) -> RowReader:
    """Read rows by the names of columns. Raises RecordError for one that is not there."""
    columns = [name.casefold() for name in header]
    for name in (args.image_column, *args.labels.values()):
        if columns.count(name.casefold()) != 1:
            there = f"not one column {name} in {', '.join(header)}"
            raise RecordError(f"{args.table}:1: {there}; set --image-column, --labels")

    def read(cells: Sequence[str]) -> dict[str, Any]:
        if len(cells) != len(header):
            raise Unusable("bad_row", f"{len(cells)} cells, the header has {len(header)}")
        row = dict(zip(columns, cells, strict=True))
        votes = {label: number_in(row[name.casefold()]) for label, name in args.labels.items()}
        for label, count in votes.items():
            if not count.is_integer() or not 0 <= count <= args.raters:
                raise Unusable("bad_number", f"{count:g} votes for {label}, not one of 0 to {args.raters}")
        if not any(votes.values()):
            raise Unusable("no_votes", "nobody names any label")
        counts = {label: int(count) for label, count in votes.items()}
        return {"image": row[args.image_column.casefold()], "votes": counts}

    return read


EMOTION6_7 = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
BENCHMARKS = {
    "emotion6": Benchmark("Emotion6", 1980, "ground_truth.txt", EMOTION6_7, emotion6),
    "multiemo": Benchmark("MultiEmo", 10_344, "votes.csv", MIKELS_8, multiemo),
}


def number_in(cell: str) -> float:
    """Give the finite number in a cell. Raises Unusable."""
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Unusable("bad_number", f"{cell[:40]!r} is not a number")
    return number


SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " "}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(lambda: build(parse_arguments(argv)), **CAN_GO_ON)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--benchmark", choices=BENCHMARKS, required=True)
    add("--raw", type=Path, required=True, metavar="DIR", help="the release")
    add("--output-dir", type=Path, required=True)
    tables = ", ".join(one.table for one in BENCHMARKS.values())
    add("--table", help=f"below --raw (default: {tables})")
    add("--separator", choices=("auto", *SEPARATORS), default="auto", help="of the table's cells")
    add("--labels", nargs="+", metavar="LABEL[=HEADER]", help="in the table's order, or with its headers")
    add("--image-column", default="image", metavar="HEADER", help="of MultiEmo (default image)")
    add("--image-name", nargs="+", default=["{image}", "images/{image}"], help="below --raw, the first found")
    add("--sum-tolerance", type=float, default=0.01, help="of probabilities from 1 (default 0.01)")
    add("--raters", type=int, default=20, help="most votes for one label of an image (default 20)")
    add("--workers", **WORKERS)
    args = parser.parse_args(argv)
    benchmark = BENCHMARKS[args.benchmark]
    args.table = args.table or benchmark.table
    pairs = [text.partition("=") for text in args.labels or benchmark.labels]
    args.labels = {label: header or label for label, _, header in pairs}
    if len(args.labels) < len(pairs):
        parser.error("--labels: a label is given twice; name each once")
    if not all("{image}" in name for name in args.image_name):
        parser.error("--image-name: put {image} where the table's name stands")
    if args.raters < 1 or not 0 <= args.sum_tolerance < 1:
        parser.error("--raters must be at least 1, --sum-tolerance from 0 to below 1")
    return args


def build(args: argparse.Namespace) -> None:
    """Read, check, write. Raises RecordError where there is nothing sound to write."""
    record_candidates({"candidates": list(args.labels)})
    benchmark, folder = BENCHMARKS[args.benchmark], args.output_dir
    lines = table_lines(args)
    read = benchmark.reader(next(lines)[1], args)
    check_outside(folder, [args.raw])
    folder.mkdir(parents=True, exist_ok=True)
    # Without it, what is there is not a benchmark: from here to the end the files are not of one build.
    (folder / "manifest.json").unlink(missing_ok=True)
    with Listing(folder / "rejected.jsonl") as rejected:
        rows = sound_rows(lines, read, args, rejected)
        files = ((path, args.raw / path) for path in rows)
        with ImageMemory(folder / SCAN) as memory:
            scanned = dict(scan(files, len(rows), memory, args.workers))
        for path, found in scanned.items():
            if found.reason:
                rejected.add(benchmark.dataset, rows.pop(path)["where"], found.reason, found.message)
        if not rows:
            counts = f"{rejected.text_of(benchmark.dataset)}; listed in {rejected.path}"
            raise RecordError(f"{args.raw / args.table}: no row can be used ({counts}); see --help")
        place_images(folder / "images", {benchmark.dataset: args.raw})
        write_jsonl_atomic(folder / "test.jsonl", (as_record(args, path, row) for path, row in rows.items()))
    images = "".join(f"{scanned[path].sha256.hex()}  {path}\n" for path in sorted(rows))
    write_manifest(args, len(rows), rejected, hashlib.sha256(images.encode()).hexdigest())


def table_lines(args: argparse.Namespace) -> Iterator[tuple[int, list[str]]]:
    """Give (line number, cells) of the table, header first. Raises RecordError if it cannot be read."""
    path = args.raw / args.table
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        # A header may hold other separators than the rows do.
        first_row = [line.strip() for line in lines if line.strip()][1]
        likely = next((mark for mark in SEPARATORS.values() if mark in first_row), ",")
        mark = SEPARATORS.get(args.separator, likely)
        reader = csv.reader(lines, delimiter=mark)
        split = ((reader.line_num, cells) for cells in reader)
        if mark == " ":
            split = ((number, line.split()) for number, line in enumerate(lines, start=1))
        stripped = [(number, [cell.strip() for cell in cells]) for number, cells in split]
    except IndexError:
        raise RecordError(f"{path}: no rows below a header line; give the table as released") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"{path}: cannot be read ({reason}); set --raw, --table, --separator") from None
    return ((number, cells) for number, cells in stripped if any(cells))


def sound_rows(
    lines: Iterator[tuple[int, list[str]]], read: RowReader, args: argparse.Namespace, rejected: Listing
) -> dict[str, dict[str, Any]]:
    """Give the rows by the path of their image below --raw; list the others.

    Of rows that repeat an image's numbers the first is used, of those that contradict each other none.
    """
    dataset = BENCHMARKS[args.benchmark].dataset
    found: dict[str, list[dict[str, Any]]] = {}
    for number, cells in lines:
        where = f"{args.table}:{number}"
        try:
            row = read(cells)
            found.setdefault(image_path(row.pop("image"), args), []).append(row | {"where": where})
        except Unusable as error:
            rejected.add(dataset, where, error.reason, str(error))
    sound = {}
    for path, rows in found.items():
        differ = any(row | {"where": ""} != rows[0] | {"where": ""} for row in rows)
        if not differ:
            sound[path] = rows.pop(0)
        for row in rows:
            reason = "conflicting_rows" if differ else "duplicate_row"
            rejected.add(dataset, row["where"], reason, f"{path}: named in several rows")
    return sound


def image_path(name: str, args: argparse.Namespace) -> str:
    """Give the path below --raw of the image that the table calls so. Raises Unusable if it leads out."""
    paths = [path_inside(form.replace("{image}", name)) or "" for form in args.image_name]
    if not name or "" in paths:
        raise Unusable("bad_path", f"{name!r} is no path below --raw")
    try:
        return next((path for path in paths if (args.raw / path).is_file()), paths[0])
    except OSError as error:  # a name that is too long
        raise Unusable("bad_path", f"{name[:80]!r}: {error.strerror}") from None


def as_record(args: argparse.Namespace, path: str, row: dict[str, Any]) -> dict[str, Any]:
    """Give the record of a row: no ground_truth, which `posterior` or `votes` stand for."""
    dataset, candidates = BENCHMARKS[args.benchmark].dataset, list(args.labels)
    task, image = f"{dataset}-{len(candidates)}", f"images/{dataset}/{path}"
    asked = {"id": f"{task}-{path}", "image": image, "conversations": conversation(image, candidates)}
    truth = {name: value for name, value in row.items() if name != "where"}
    return asked | {"task": task, "candidates": candidates} | truth


def write_manifest(args: argparse.Namespace, n_rows: int, rejected: Listing, image_sha256: str) -> None:
    """Write settings, counts and sums, and say what was built."""
    benchmark, folder = BENCHMARKS[args.benchmark], args.output_dir
    rejected.close()
    files = ("test.jsonl", "rejected.jsonl")
    content = {
        "arguments": {k: v for k, v in vars(args).items() if k not in ("raw", "output_dir", "workers")},
        "rows": n_rows,
        "published_rows": benchmark.n_rows,
        "left_out": rejected.of(benchmark.dataset),
        "sha256": {name: file_sha256(folder / name) for name in files},
        "image_sha256": image_sha256,
        "versions": installed_versions(["pillow"]),
        "commit": commit(),
    }
    write_text_atomic(folder / "manifest.json", json.dumps(content, indent=1) + "\n")
    print(f"left out: {rejected.text_of(benchmark.dataset)}", file=sys.stderr)
    print(f"{folder}: {n_rows:,} test rows of {benchmark.dataset}, published {benchmark.n_rows:,}")


if __name__ == "__main__":
    sys.exit(main())
