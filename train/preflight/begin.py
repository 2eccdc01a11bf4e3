"""Says whether a run may begin, or go on, in a folder: with all that it was begun with.

    python train/preflight/begin.py --output-dir DIR --stage 1 --base MODEL --dataset FILE --settings FILE \\
        [--engine swift|verl] [--reward NAME] [-- flags of the run]

DIR/run.json holds what the first start was given: names and sums of the model, the data and the settings,
reward, pixels, GPUs and every flag. While DIR holds a finished model, checkpoints or rollouts, a start that
differs is refused with status 2, which names the differences. RESUME_CHANGED=1 goes on in spite of them: the
new values replace the old ones in run.json, its `changed` lists the differences, and so does the model card.
A finished model stays as it is, with its run.json.

DIR may be older than run.json. A finished model is then accepted; checkpoints, of which nobody knows with
what they were made, are not, unless RESUME_UNKNOWN=1 says that they are this run's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, write_text_atomic
from emocaliber.provenance import file_sha256
from train.preflight.variables import check_variables, given_values, settings_files

WHOLE_BYTES = 2**26
"""Weights up to this size are summed in whole."""
BLOCKS, BLOCK_BYTES = 1024, 2**14
"""Of larger ones so many blocks, evenly spread: training changes weights everywhere."""
FROM_ENVIRONMENT = ("N_GPU", "MIN_PIXELS", "MAX_PIXELS")


def main(argv: Sequence[str] | None = None) -> int:
    """Accept the start, or say why not; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    add_facts(parser)
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def add_facts(parser: CommandParser) -> None:
    """Add the arguments that say what a run is made of; the model card takes the same."""
    parser.add_argument("--stage", required=True, help="1, 2, 3 or another name")
    parser.add_argument("--base", required=True, help="the model that is trained: a folder or a hub name")
    parser.add_argument("--dataset", type=Path, required=True, help="rows, or the records of stage 3")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--engine", default="swift", choices=["swift", "verl"])
    parser.add_argument("--reward", help="stage 3: the name of the reward")
    parser.add_argument("flags", nargs="*", help="after --: flags or keys that go before the settings")


def work(args: Namespace) -> None:
    """Write run.json, or hold the start against it. Raises RecordError, and OSError for unreadable files."""
    check_variables()
    if args.engine == "verl" and "'" in f"{args.output_dir}{args.base}":
        raise RecordError(
            f"{args.output_dir}, {args.base}: verl's keys cannot hold an apostrophe; rename the folder"
        )
    written = args.output_dir / "run.json"
    found = work_in(args.output_dir)
    is_finished = found == "a finished model"
    if not written.is_file() and is_finished:
        print(f"{written}: not there; what made {args.output_dir}/final is not known")
        return
    now = given(args)
    if found and written.is_file():
        then = read_run(written)
        differences = compare(then, now)
        if differences and os.environ.get("RESUME_CHANGED") != "1":
            raise RecordError(
                f"{args.output_dir} holds {found}: {'; '.join(differences)}; give the same, "
                "RESUME_CHANGED=1 to go on with what is given now, another OUTPUT_DIR or OUTPUT_ROOT, or "
                f"remove {args.output_dir}"
            )
        if is_finished or not differences:
            return
        now["changed"] = [*then["changed"], *differences]
        print(f"{args.output_dir}: goes on though {'; '.join(differences)}")
    elif found and os.environ.get("RESUME_UNKNOWN") != "1":
        raise RecordError(
            f"{args.output_dir} holds {found} and no run.json that says with what they were made; give "
            "another OUTPUT_DIR or OUTPUT_ROOT, or RESUME_UNKNOWN=1 if they are of this very run"
        )
    write_text_atomic(written, json.dumps(now, indent=1, ensure_ascii=False) + "\n")


def work_in(folder: Path) -> str | None:
    """What of an earlier start would be kept or gone on from, in words."""
    if (folder / "final" / "config.json").is_file():
        return "a finished model"
    is_saved = any(folder.glob("checkpoint-*/trainer_state.json"))  # ms-swift's; the other is verl's
    if is_saved or (folder / "latest_checkpointed_iteration.txt").is_file():
        return "checkpoints"
    log = folder / "rewards.jsonl"
    return "rollouts" if log.is_file() and log.stat().st_size else None


def given(args: Namespace) -> dict[str, Any]:
    """What a start is given: `made`, the values that are compared; `sums`, of the files that it names."""
    made = {"stage": args.stage, "engine": args.engine, "model": args.base, "data": str(args.dataset)}
    made["settings"] = str(args.settings)
    if args.reward:
        made["reward"] = args.reward
    made |= {name: os.environ[name] for name in FROM_ENVIRONMENT if os.environ.get(name)}
    sums = {"model": model_sum(args.base), "data": file_sha256(args.dataset)}
    sums["settings"] = "".join(map(file_sha256, settings_files(args.settings)))
    return {"made": made | given_values(args.engine, args.flags), "sums": sums}


def read_run(path: Path) -> dict[str, Any]:
    """What `given` gave at an earlier start, with the `changed` since. Raises RecordError."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Any] = {
            name: {str(key): str(value) for key, value in run[name].items()} for name in ("made", "sums")
        }
        return found | {"changed": [str(line) for line in run.get("changed", ())]}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RecordError(f"{path}: not readable ({error}); restore it, or remove {path.parent}") from None


def changes_of(folder: Path) -> list[str]:
    """What was changed between the starts of the run in a folder, in words; nothing where it is not known."""
    written = folder / "run.json"
    return list(read_run(written)["changed"]) if written.is_file() else []


def compare(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences in words; files are the same where their sums are."""
    found = []
    for name in dict.fromkeys([*then["made"], *now["made"]]):
        values = [run["made"].get(name, "as in the settings") for run in (then, now)]
        sums = [run["sums"].get(name) for run in (then, now)]
        if any(sums):
            is_same = sums[0] == sums[1]
            values = [f"{value} ({str(sum_)[:12]})" for value, sum_ in zip(values, sums, strict=True)]
        else:
            is_same = values[0] == values[1]
        if not is_same:
            found.append(f"{name} {values[0]} then, {values[1]} now")
    return found


def model_sum(model: str) -> str:
    """A sum of a folder's config and weights, of large files in part; a hub name is its own."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("config.json"), *folder.glob("*.safetensors")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for start, length in blocks_of(size):
                file.seek(start)
                digest.update(file.read(length))
    return digest.hexdigest()


def blocks_of(size: int) -> Iterable[tuple[int, int]]:
    """(start, length) of the parts of a file of weights that are summed."""
    if size <= WHOLE_BYTES:
        return [(0, size)]
    return [(block * (size - BLOCK_BYTES) // (BLOCKS - 1), BLOCK_BYTES) for block in range(BLOCKS)]


if __name__ == "__main__":
    sys.exit(main())
