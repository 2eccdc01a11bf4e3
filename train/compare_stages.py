"""Compare the stages of EmoCaliber-mini: accuracy, calibration and distance to the truth, over seeds.

    python train/compare_stages.py 0/stage1=FILE 0/stage2=FILE 0/stage2_held_out=FILE 0/stage3_brier=FILE \\
        1/stage1=FILE ... --scenes data/VECBench-mini-large/test_scenes.jsonl --output-dir DIR

A RUN is SEED/NAME=FILE: NAME is stage1, stage2, stage3_REWARD or stage2_held_out, FILE its predictions. Rows
of VECBench-mini are needed, with their `posterior`; all but stage2_held_out are over the same ones. From
stage2_held_out, stage 2's answers to rows that no stage before it has trained on, the post-hoc maps are
fitted. A run whose FILE is not there is left out and said to be; the first stage3 run is the one that the
others are compared with. Writes stages.md, stages.json, stages.png and verdicts.txt, a line a claim.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.command_line import CommandParser
from emocaliber.jsonl import RecordError, read_jsonl, write_text_atomic
from emocaliber.records import iterate_records
from emocaliber.scoring import score

if TYPE_CHECKING:
    from train.stages.scores import Key, Run


HELD_OUT = "stage2_held_out"
MARKERS = ("<!-- stages: begin -->", "<!-- stages: end -->")
_RUN = re.compile(r"([^/=]+)/(stage1|stage2|stage2_held_out|stage3_[^/=]+)=(.+)")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="SEED/NAME=FILE, see above")
    parser.add_argument("--scenes", type=Path, help="scenes of the test rows; without, no scene facts")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help=f"write the tables between {MARKERS[0]} and {MARKERS[1]} too",
    )
    parser.add_argument("--figure", type=Path, metavar="PNG", help="write the figure there too")
    parser.add_argument("--draws", type=int, default=2000, metavar="N", help="bootstrap draws (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    arguments = parser.parse_args(argv)
    for run in arguments.runs:
        if not _RUN.fullmatch(run):
            parser.error(f"{run!r} is no run; give SEED/NAME=FILE, as 0/stage2=predictions.jsonl")
    if arguments.draws < 100:
        parser.error("--draws must be at least 100")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, compare, write."""
    arguments = parse_arguments(argv)
    from emocaliber.report.comparison import MismatchError

    try:
        if arguments.readme is not None:
            readme_around(arguments.readme)  # before the work, not after it
        write(compared(files_that_are_there(arguments.runs), arguments), arguments)
    except (RecordError, MismatchError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; give a place to write to", file=sys.stderr)
        raise SystemExit(2) from None


def files_that_are_there(runs: Sequence[str]) -> dict[Key, Path]:
    """The file of each (seed, name), in order; says which are not there. Raises RecordError."""

    files: dict[Key, Path] = {}
    for run in runs:
        seed, name, file = _RUN.fullmatch(run).groups()  # type: ignore[union-attr]
        if (seed, name) in files:
            raise RecordError(f"{seed}/{name} is given twice; give each run once")
        if Path(file).is_file():
            files[seed, name] = Path(file)
        else:
            print(f"{seed}/{name} is not in the tables: no {file}", file=sys.stderr)
    if not any(name == "stage2" for _, name in files):
        raise RecordError("no stage2 run is there; evaluate a stage-2 model first (train/reproduce_mini.sh)")
    return files


def compared(files: dict[Key, Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is written, as JSON. Raises RecordError and MismatchError."""
    from train.stages.results import summarise
    from train.stages.scores import score_runs

    scenes = None
    if arguments.scenes is not None:
        scenes = {row.get("id"): row.get("scene") for _, row in read_jsonl(arguments.scenes)}
    runs, fell_back = with_posthoc({key: read_run(file, key[1], scenes) for key, file in files.items()})
    scores, n_images = score_runs(runs, arguments.draws, arguments.seed)
    return {
        "n_rows": len(next(iter(runs.values())).rows),
        "n_images": n_images,
        "n_draws": arguments.draws,
        "seed": arguments.seed,
        "seeds": list(dict.fromkeys(seed for seed, _ in files)),
        "files": {"/".join(key): str(file) for key, file in files.items()},
        "fell_back": fell_back,
    } | summarise(scores, arguments.seed)


def read_run(file: Path, name: str, scenes: dict[Any, Any] | None) -> Run:
    """Score a run's rows, and read the scene facts in its reasoning. Raises RecordError."""
    from train.stages.scores import Run, facts_right, mean

    rows, facts = [], []
    for record in iterate_records(file):
        row = score(record)
        if row.posterior is None:
            raise RecordError(f"{file}: row {row.id!r} has no posterior; give rows of VECBench-mini")
        rows.append(row)
        if scenes is None or name == HELD_OUT:
            facts.append(float("nan"))
            continue
        if not isinstance(scenes.get(row.id), dict):
            raise RecordError(f"no scene of row {row.id!r} of {file}; give --scenes of the same build")
        facts.append(mean(list(facts_right([(record, scenes[row.id])]).values())))
    if not rows:
        raise RecordError(f"{file}: no rows; give a file with predictions")
    return Run(rows, facts)


def with_posthoc(runs: dict[Key, Run]) -> tuple[dict[Key, Run], list[str]]:
    """Stages 1 and 2, post-hoc maps, stages 3 and the optimum, each over its seeds; tasks that fell back."""
    from train.stages.scores import OPTIMUM, optimum, posthoc_runs

    mapped: dict[Key, Run] = {}
    fell_back: set[str] = set()
    for (seed, name), held_out in runs.items():
        if name != HELD_OUT or (seed, "stage2") not in runs:
            continue
        try:
            found, tasks = posthoc_runs(runs[seed, "stage2"], held_out)
        except ValueError as error:
            raise RecordError(f"{seed}/{HELD_OUT}: {error}") from None
        mapped |= {(seed, f"stage2 + {one}"): run for one, run in found.items()}
        fell_back |= set(tasks)
    parts = [
        {key: run for key, run in runs.items() if key[1] in ("stage1", "stage2")},
        mapped,
        {key: run for key, run in runs.items() if key[1].startswith("stage3_")},
    ]
    ordered = {
        key: run for part in parts for key, run in sorted(part.items(), key=lambda one: place(part, one[0]))
    }
    return ordered | {("", OPTIMUM): optimum(next(iter(ordered.values())))}, sorted(fell_back)


def place(part: dict[Key, Run], key: Key) -> int:
    """Where a run's name first occurs: the seeds of a run stand together."""
    return [name for _, name in part].index(key[1])


def readme_around(readme: Path) -> tuple[str, str]:
    """The text up to and from the markers. Raises RecordError where they are not there once, in order."""

    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    begin, end = (text.find(marker) for marker in MARKERS)
    if begin < 0 or end < begin or any(text.count(marker) > 1 for marker in MARKERS):
        raise RecordError(f"{readme}: no {MARKERS[0]} followed by {MARKERS[1]}; put both where the tables go")
    return text[: begin + len(MARKERS[0])], text[end:]


def write(results: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write the files and print the verdicts."""
    from train.stages.tables import markdown, png, verdict_lines

    text, figure = markdown(results), png(results)
    told = "".join(f"{line}\n" for line in verdict_lines(results))
    folder: Path = arguments.output_dir
    write_text_atomic(folder / "stages.json", json.dumps(results, indent=1) + "\n")
    write_text_atomic(folder / "stages.md", text)
    write_text_atomic(folder / "verdicts.txt", told)
    for path in (folder / "stages.png", arguments.figure):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(figure)
    if arguments.readme is not None:
        shown = arguments.figure or folder / "stages.png"
        link = f"![The stages, group by group]({os.path.relpath(shown, arguments.readme.parent)})\n"
        before, after = readme_around(arguments.readme)
        write_text_atomic(arguments.readme, f"{before}\n{text}\n{link}{after}")
    print(f"{told}{folder}: stages.md, stages.json, stages.png, verdicts.txt")


if __name__ == "__main__":
    main()
