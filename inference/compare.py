"""Compare runs over the same rows: what each scored, how all differ from the first, and how sure that is.

A RUN is a file of predictions or a run folder: its merged_conf.jsonl, unless its predictions.jsonl is newer,
else its predictions.jsonl, else its merged.jsonl, each plain or as .gz. Without --output-dir the comparison
is printed in one format; with it, all four are written.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser, run_command
from emocaliber.records import RecordError, iterate_with_places, write_text_atomic
from emocaliber.report.tables import printable
from emocaliber.scoring import ScoredRow, score
from inference.outputs.staging import replace_together

RUN_FILES = ("merged_conf.jsonl", "predictions.jsonl", "merged.jsonl")
FORMATS = {"text": "txt", "markdown": "md", "latex": "tex", "json": "json"}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="two or more run folders or files of predictions, plain or gzipped, over the same rows; "
        "every one is compared with the first",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="write comparison.txt, .md, .tex and .json there; made if it is not there",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=5000,
        metavar="N",
        help="bootstrap draws for intervals and p-values, 0 for none, else at least 100; Holm's correction "
        "of M tests needs 40 M (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the draws (default: %(default)s)"
    )
    parser.add_argument(
        "--format", choices=tuple(FORMATS), default="text", help="what is printed (default: %(default)s)"
    )
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="what the runs are called, in their order (default: the names of their folders or files)",
    )
    arguments = parser.parse_args(argv)
    if len(arguments.runs) < 2:
        parser.error("give at least two runs to compare")
    if arguments.draws != 0 and arguments.draws < 100:
        parser.error("--draws must be 0 or at least 100")
    if arguments.seed < 0:
        parser.error("--seed must be 0 or above")
    if arguments.names is not None and len(arguments.names) != len(arguments.runs):
        parser.error(f"--names gives {len(arguments.names)} names for {len(arguments.runs)} runs")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: work(parse_arguments(argv)))


def work(arguments: argparse.Namespace) -> None:
    """Compare, write what is to be written, and print."""
    from emocaliber.report.as_json import comparison_content, metrics_json
    from emocaliber.report.comparison import MismatchError, compare
    from emocaliber.report.comparison_tables import RENDERERS

    output_dir: Path | None = arguments.output_dir
    if output_dir is not None and output_dir.exists() and not output_dir.is_dir():
        raise RecordError(f"{output_dir}: not a folder; give --output-dir a folder")
    files = [_predictions_of(Path(run)) for run in arguments.runs]
    for place, file in enumerate(files):
        if os.path.realpath(file) in map(os.path.realpath, files[:place]):
            raise RecordError(f"{arguments.runs[place]}: given twice; give every run once")
    names = _names(arguments.names, arguments.runs, files)
    try:
        comparison = compare(zip(names, map(_scored, files), strict=True), arguments.draws, arguments.seed)
    except MismatchError as error:
        raise RecordError(str(error)) from None
    file_of = dict(zip(names, map(str, files), strict=True))
    texts = {name: render(comparison, file_of) for name, render in RENDERERS.items()}
    texts["json"] = metrics_json(comparison_content(comparison, file_of))
    printed = texts[arguments.format].rstrip("\n")
    if output_dir is not None:
        written = replace_together(output_dir, lambda folder: _write(folder, texts), lambda _: set())
        told = f"Written to {output_dir}: {', '.join(written)}"
        if arguments.format == "json":  # what is printed stays JSON
            print(told, file=sys.stderr)
        else:
            printed += f"\n\n{told}"
    print(printed)


def _predictions_of(run: Path) -> Path:
    if not run.is_dir():
        if not run.exists():
            raise RecordError(f"{run}: no such run; give a run folder or a file of predictions")
        return run
    files = {name: file for name in RUN_FILES for file in (run / f"{name}.gz", run / name) if file.is_file()}
    if not files:
        raise RecordError(f"{run}: holds none of {', '.join(RUN_FILES)}; give a run folder or a file")
    evaluated, predicted = files.get("merged_conf.jsonl"), files.get("predictions.jsonl")
    if evaluated and predicted and predicted.stat().st_mtime_ns > evaluated.stat().st_mtime_ns:
        return predicted  # inferred again, not evaluated yet
    return next(iter(files.values()))


def _names(given: Sequence[str] | None, runs: Sequence[str], files: Sequence[Path]) -> list[str]:
    names = [printable(name) for name in given or [_own_name(file) for file in files]]
    if len(set(names)) < len(names) and given is None:
        names = [printable(run) for run in runs]
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            raise RecordError(f"name {name!r} is empty or given twice; give each run one with --names")
    return names


def _own_name(file: Path) -> str:
    """The folder of a file that has a name of every run, else the name of the file without its ending."""
    resolved = file.resolve()
    if resolved.name.removesuffix(".gz") in RUN_FILES:
        return resolved.parent.name
    return resolved.name.removesuffix(".gz").removesuffix(".jsonl")


def _scored(file: Path) -> Iterator[ScoredRow]:
    n_rows = 0
    for place, record in iterate_with_places(file):
        n_rows += 1
        try:
            row = score(record)
        except RecordError as error:
            raise RecordError(f"{place}: {error}") from None
        yield row
    if not n_rows:
        raise RecordError(f"{file}: no rows; give a file with predictions")


def _write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        write_text_atomic(folder / f"comparison.{FORMATS[name]}", text)


if __name__ == "__main__":
    sys.exit(main())
