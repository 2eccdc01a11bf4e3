"""Show the prompt of a row of a run, as the model got it, from the run's own run.json.

An image stands as the one token of the template that its image tokens replace. Refuses if the checkpoint or
the data are no longer those of the run.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser, run_command
from emocaliber.provenance import file_sha256
from emocaliber.records import Record, RecordError, is_invalid_record, iterate_with_places
from inference.backends.prepare import ChatTokenizer, RowError, chat_messages
from inference.runs.checkpoint import open_checkpoint
from inference.runs.run_folder import RUN, read_run


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--run", required=True, type=Path, metavar="DIR", help="the output folder of infer.py"
    )
    parser.add_argument("--id", metavar="ID", help="of the row (default: the first)")
    return parser.parse_args(argv)


def rendered_prompt(folder: Path, row_id: str | None) -> str:
    """Give the text of a row's prompt up to where the answer begins. Raises RecordError."""
    run = _read_run(folder)
    path = run["model"]["path"]
    if path is None:
        raise RecordError(f"{folder}: its model was not a folder; only there is the chat template known")
    if open_checkpoint(path).sha256 != run["model"]["sha256"]:
        raise RecordError(f"{path}: no longer the checkpoint of {folder}; put that one back")
    record = _row(folder, run, row_id)
    try:
        return ChatTokenizer(path).render(chat_messages(record, run["prompt"]["name"]))
    except RowError as error:
        raise RecordError(f"row {record['id']!r} has no prompt: {error.message}") from None


def _read_run(folder: Path) -> dict[str, Any]:
    with suppress(RecordError, LookupError, TypeError):
        run = read_run(folder)
        if {"path", "sha256"} <= set(run["model"]) and "name" in run["prompt"]:
            return run
    raise RecordError(f"{folder / RUN}: not the run.json of a run of infer.py; give --run its output folder")


def _row(folder: Path, run: dict[str, Any], row_id: str | None) -> Record:
    """Find the row among the predictions, else (the run has not finished) in the data."""
    source = folder / "predictions.jsonl"
    if not source.is_file():
        source = Path(run["data"]["path"])
        if not source.is_file() or file_sha256(source) != run["data"]["sha256"]:
            raise RecordError(f"{source}: no longer the data of {folder}; let the run finish, or put it back")
    for _, record in iterate_with_places(source, need_truth=False, allow_invalid=True):
        if row_id in (None, record["id"]):
            if is_invalid_record(record):
                raise RecordError(f"{source}: row {record['id']!r} is no record, so it has no prompt")
            return record
    raise RecordError(f"{source}: no row has the id {row_id!r}")


def show(arguments: argparse.Namespace) -> None:
    """Print the prompt that is asked for. Raises RecordError."""
    print(rendered_prompt(arguments.run, arguments.id))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: show(parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
