"""Says whether a run may begin, or go on, in a folder: with what decides its result as it was begun.

    python train/preflight/begin.py --output-dir DIR --stage 1 --base MODEL --dataset FILE --settings FILE \\
        [--engine swift|verl] [--reward NAME] [-- flags of the run]

DIR/run.json holds that of the first start: sums of the model, the data and the settings, reward, seed and the
other flags, but not the number of steps, what is saved when, or the machine's part in it. While DIR holds a
finished model, checkpoints or rollouts, a start that differs is refused with status 2. Without these it is a
first start.

DIR may be older than run.json. A finished model is then accepted as it is; checkpoints, of which nobody
knows with what they were made, are not gone on from, unless RESUME_UNKNOWN=1 says that they are this run's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser
from emocaliber.jsonl import RecordError, write_text_atomic
from emocaliber.provenance import file_sha256
from train.preflight.sft_settings import read_settings
from train.preflight.variables import check_variables, deciding, number, swift_flags, verl_keys

WHOLE_BYTES = 2**26
"""Weights up to this size are summed in whole."""
BLOCKS, BLOCK_BYTES = 1024, 2**14
"""Of larger ones so many blocks, evenly spread: training changes weights everywhere."""


def main() -> None:
    """Accept the start, or say why not and exit with 2."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--base", required=True, help="the model that is trained: a folder or a hub name")
    parser.add_argument("--dataset", type=Path, required=True, help="rows, or the records of stage 3")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--engine", default="swift", choices=["swift", "verl"])
    parser.add_argument("--reward", help="stage 3: the name of the reward")
    parser.add_argument("flags", nargs="*", help="after --: flags or keys that go before the settings")
    args = parser.parse_args()
    try:
        check_variables()
        begin(args)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; give files that are there", file=sys.stderr)
        raise SystemExit(2) from None


def begin(args: Namespace) -> None:
    """Write run.json, or hold the start against it. Raises RecordError, and OSError for unreadable files."""
    if args.engine == "verl" and "'" in f"{args.output_dir}{args.base}":
        raise RecordError(
            f"{args.output_dir}, {args.base}: verl's keys cannot hold an apostrophe; rename the folder"
        )
    written = args.output_dir / "run.json"
    work = work_in(args.output_dir)
    if not written.is_file() and work == "a finished model":
        print(f"{written}: not there; what made {args.output_dir}/final is not known")
        return
    now = deciders(args)
    if written.is_file():
        differences = compare(read_run(written), now)
        if differences and work:
            raise RecordError(
                f"{args.output_dir} holds {work}: {'; '.join(differences)}; give the same, another "
                f"OUTPUT_DIR or OUTPUT_ROOT, or remove {args.output_dir}"
            )
    elif work and os.environ.get("RESUME_UNKNOWN") != "1":
        raise RecordError(
            f"{args.output_dir} holds {work} and no run.json that says with what they were made; give "
            "another OUTPUT_DIR or OUTPUT_ROOT, or RESUME_UNKNOWN=1 if they are of this very run"
        )
    if not (written.is_file() and work):
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


def read_run(path: Path) -> dict[str, dict[str, str]]:
    """What `deciders` gave at the first start. Raises RecordError."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return {name: {str(key): str(value) for key, value in run[name].items()} for name in ("made", "sums")}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RecordError(f"{path}: not readable ({error}); restore it, or remove {path.parent}") from None


def deciders(args: Namespace) -> dict[str, dict[str, str]]:
    """What decides the result: `made`, the values that are compared; `sums`, of the files named in it."""
    made = {"stage": args.stage, "engine": args.engine, "model": args.base, "data": str(args.dataset)}
    made["settings"] = str(args.settings)
    if args.reward:
        made["reward"] = args.reward
    if args.engine == "swift":
        flags = swift_flags(args.flags)
        made["rows a step"] = str(rows_a_step(read_settings(args.settings, args.flags)))
        made |= {name: os.environ[name] for name in ("MIN_PIXELS", "MAX_PIXELS") if os.environ.get(name)}
    else:
        flags = verl_keys(args.flags)
    sums = {"model": model_sum(args.base), "data": file_sha256(args.dataset)}
    sums["settings"] = file_sha256(args.settings)
    return {"made": made | deciding(flags), "sums": sums}


def rows_a_step(settings: Mapping[str, Any]) -> int:
    """Rows of all GPUs, however they are divided among them and in time. Raises RecordError."""
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    try:
        batch, accumulated = (int(settings.get(name) or 1) for name in names)
    except (TypeError, ValueError):
        given = ", ".join(f"{name} {settings.get(name)}" for name in names)
        raise RecordError(f"{given}: give whole numbers") from None
    return batch * accumulated * int(number("N_GPU", 1))


def compare(then: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """The differences in words; files are the same where their sums are."""
    found = []
    for name in dict.fromkeys([*then["made"], *now["made"]]):
        sums = (then["sums"].get(name), now["sums"].get(name))
        if any(sums):
            values = [
                f"{run['made'].get(name)} ({str(sum_)[:12]})"
                for run, sum_ in zip((then, now), sums, strict=True)
            ]
            is_same = sums[0] == sums[1]
        else:
            values = [run["made"].get(name, "as in the settings") for run in (then, now)]
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
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for block in range(BLOCKS):
                file.seek(block * (size - BLOCK_BYTES) // (BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


if __name__ == "__main__":
    main()
