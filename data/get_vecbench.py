"""Takes the published VECBench, from the hub or a local copy, as records, and reports what differs.

    python data/get_vecbench.py --revision COMMIT --output-dir data/VECBench      # wudq/VECBench on the hub
    python data/get_vecbench.py --source DIR_OR_FILE --image-root DIR --output-dir data/VECBench

Three layouts are recognised by their content: records (.jsonl), {id: {image_path, prompt, ground_truth,
other_info}} (Std-VECBench.json), and a table with columns image_path, task, label, split (test_metadata.csv).
Written to OUTPUT_DIR: test.jsonl, and train.jsonl where the split says so, with image paths relative to the
image root; differences.jsonl (where, reason, message); report.json; manifest.json (source, commit, sums of
the data files); image_checks.jsonl (sum and form of each image; an interrupted check goes on from it).

Checked against the tables of emocaliber.taxonomy: rows per task, tasks, candidates, labels; images for being
there and for decoding to their last pixel. Rows that cannot be records are left out and listed, all others
are written. Exit status 1 if anything differs, 0 if not, 2 for a mistake in the arguments or the source.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.published.as_records import RecordMaker
from data.published.conversion import (
    DIFFERENCES,
    Conversion,
    Report,
    read_manifest,
    visible_files,
    write_manifest,
)
from data.published.layouts import COLUMN, columns_of, recognise
from emocaliber.command_line import CommandParser, run_command
from emocaliber.image_scan import CAN_GO_ON, WORKERS
from emocaliber.jsonl import RecordError
from emocaliber.provenance import file_sha256

REPOSITORY = "wudq/VECBench"
SPLITS = ("test", "train")
MANIFEST = "manifest.json"
DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv")
LAYOUT_NAMES = {
    "records_jsonl": "records, one a line",
    "std_json": "{id: {image_path, prompt, ground_truth, other_info}}, as Std-VECBench.json",
    "metadata_csv": "a table with image_path, task, label, split, as test_metadata.csv",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(lambda: get(parse_arguments(argv)), **CAN_GO_ON)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="a local copy: its folder, or one file of it")
    add = parser.add_argument_group("from the hub (without --source)").add_argument
    add("--repository", default=REPOSITORY, help=f"default {REPOSITORY}")
    add("--revision", help="a commit (best), a tag or a branch; required")
    add("--include", action="append", metavar="PATTERN", help="take only such files; repeatable")
    add("--exclude", action="append", metavar="PATTERN", help="leave such files; repeatable")
    add = parser.add_argument_group("the rows").add_argument
    add("--file", action="append", metavar="PATH", help="read this file of the source only; repeatable")
    add("--column", **COLUMN)
    add(
        "--split",
        action="append",
        default=[],
        metavar="VALUE=test|train|skip",
        help="what a value of `split` means (default: test and train; another one is reported)",
    )
    add("--default-split", choices=SPLITS, help="of rows without (default: by the file's name)")
    add(
        "--questions",
        choices=("published", "with_confidence", "without_confidence"),
        default="published",
        help="keep the published questions, where there are (default), or ask as this repository does",
    )
    add = parser.add_argument_group("the images").add_argument
    add("--image-root", type=Path, help="default: the folder of the source")
    add("--strip-prefix", default="", help="take this off the front of every image path")
    add("--skip-images", action="store_true", help="do not look at the images")
    add("--workers", **WORKERS)
    args = parser.parse_args(argv)
    if args.source is None and not args.revision:
        parser.error(
            "give --revision, the commit of the hub's repository to take, or --source for a local copy"
        )
    if args.source is not None and not args.source.exists():
        parser.error(f"--source {args.source} is missing; give the folder or the file of a local copy")
    if args.source is not None and args.output_dir.resolve() in (
        args.source.resolve(),
        args.source.resolve().parent if args.source.is_file() else None,
    ):
        parser.error(f"--output-dir {args.output_dir} is the folder of the source; give another one")
    args.columns = columns_of(parser, args.column)
    args.splits = {"test": "test", "train": "train"}
    for text in args.split:
        name, _, meaning = text.partition("=")
        if meaning not in (*SPLITS, "skip"):
            parser.error(f"--split {text}: the value means test, train or skip")
        args.splits[name.strip().lower()] = meaning
    return args


def get(args: argparse.Namespace) -> int:
    """Do it all; give the exit status. Raises RecordError where there is nothing to report on."""
    folder: Path = args.output_dir
    source, commit = args.source, None
    if source is None:
        source, commit = download(args.repository, args.revision, folder / "hub", args.include, args.exclude)
    root = args.image_root or (source if source.is_dir() else source.parent)
    files = find_files(source, args.file or [], args.columns, folder)
    folder.mkdir(parents=True, exist_ok=True)
    sums = {str(path): file_sha256(path) for path, _ in files}
    maker = RecordMaker(root, args.strip_prefix, args.questions)
    with Report(folder) as report, Conversion(maker, args.splits, report, folder) as conversion:
        sums_before, written_before = read_manifest(folder / MANIFEST)
        for path in (path for path in sums if sums_before.get(path, sums[path]) != sums[path]):
            report.add(path, "sum_changed", "other bytes than the manifest of the run before says")
        conversion.read(files, args.columns, args.default_split)
        if not args.skip_images:
            conversion.check_images(folder / "image_checks.jsonl", args.workers)
        (folder / MANIFEST).unlink(missing_ok=True)  # from here on its sums are not those of the files
        written = conversion.finish()
        for name in written_before - {path.name for path in written.values()}:
            (folder / name).unlink(missing_ok=True)  # of a split that is no more
        report.facts |= {"files": {str(path): layout for path, layout in files}, "image_root": str(root)}
        differs = report.finish()
    from_hub = {"repository": args.repository, "revision": args.revision, "commit": commit}
    said: dict[str, Any] = {"source": from_hub if args.source is None else {"path": str(args.source)}}
    said |= {name: getattr(args, name) for name in ("columns", "splits", "questions", "strip_prefix")}
    write_manifest(folder / MANIFEST, said, sums, written.values())
    print("\n".join([*conversion.table(), *report.lines(), *summary(report.facts)]))
    print(f"differs from the published tables, see {folder / DIFFERENCES}" if differs else "as published")
    return int(differs)


def summary(facts: Mapping[str, Any]) -> Iterator[str]:
    """What was read and written, as text."""
    for path, layout in facts["files"].items():
        yield f"{path}: {LAYOUT_NAMES[layout]}"
    images = ", ".join(f"{name} {count}" for name, count in facts.get("images", {}).items() if count)
    yield f"images under {facts['image_root']}: {images or 'not looked at'}"
    if facts.get("advice"):
        yield f"advice: {facts['advice']}"
    yield f"rows: {facts['n_rows']}, left out {facts['n_left_out']}, skipped by --split {facts['n_skipped']}"


def download(
    repository: str, revision: str, folder: Path, include: Sequence[str] | None, exclude: Sequence[str] | None
) -> tuple[Path, str]:
    """Take a data set of the hub into FOLDER/COMMIT, and give that folder and the commit.

    What is there is not taken again, half a file included. Raises RecordError where the hub does not give it.
    """
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        commit = revision
        if not re.fullmatch("[0-9a-f]{40}", revision):
            commit = HfApi().repo_info(repository, repo_type="dataset", revision=revision).sha or revision
        # A folder per commit: files that a later commit no longer has do not stay among its own.
        local = snapshot_download(
            repository,
            repo_type="dataset",
            revision=commit,
            local_dir=folder / commit,
            allow_patterns=list(include) if include else None,
            ignore_patterns=list(exclude) if exclude else None,
        )
    # ValueError: a malformed name of a repository, or a server that is no hub.
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RecordError(
            f"{repository} at {revision}: cannot be taken ({type(error).__name__}: {reason}); check the "
            "name, the revision, the network, HF_ENDPOINT and HF_TOKEN; a rerun goes on from what is there"
        ) from None
    return Path(local), commit


def find_files(
    source: Path, selected: Sequence[str], columns: Mapping[str, str], output_dir: Path
) -> list[tuple[Path, str]]:
    """Give (file, layout) of the files to read, all of one layout. Raises RecordError if there are none."""
    if source.is_file():
        paths = [source]
    elif selected:
        paths = [source / name for name in selected]
    else:
        paths = list(data_files(source))
    own = output_dir.resolve()
    is_from_hub = own in source.resolve().parents
    paths = [path for path in paths if is_from_hub or own not in path.resolve().parents]
    seen = [(path, *recognise(path, columns)) for path in paths]
    found = [(path, layout) for path, layout, _ in seen if layout is not None]
    others = [f"{path} ({why})" for path, layout, why in seen if layout is None]
    if not found or (selected and others):
        raise RecordError(
            f"{source}: no VECBench in {'; '.join(others[:5]) or 'any .jsonl, .json or .csv file'}; "
            "give the folder or file of records, Std-VECBench.json or test_metadata.csv (headers: --column)"
        )
    if len({layout for _, layout in found}) > 1:
        names = ", ".join(f"{path} ({layout})" for path, layout in found[:5])
        raise RecordError(f"{source}: more than one layout: {names}; choose by --file")
    return found


def data_files(source: Path) -> Iterator[Path]:
    """Give what may be data under a folder, in order, but nothing hidden.

    Raises RecordError for a folder that cannot be read: what it holds would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise RecordError(
            f"{error.filename}: cannot be read ({error.strerror}); mend its permissions, or choose by --file"
        )

    return (path for path in visible_files(source, refuse) if path.name.lower().endswith(DATA_SUFFIXES))


if __name__ == "__main__":
    sys.exit(main())
