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

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, write_text_atomic

_RUN = re.compile(r"([^/=]+)/(stage1|stage2|stage2_held_out|stage3_[^/=]+)=(.+)")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the runs, compare, write; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="SEED/NAME=FILE, see above")
    parser.add_argument("--scenes", type=Path, help="scenes of the test rows; without, no scene facts")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="write the tables there too, between <!-- stages: begin --> and <!-- stages: end -->",
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
    return run_command(lambda: work(arguments))


def work(arguments: argparse.Namespace) -> None:
    """Compare, write the files and print the verdicts. Raises RecordError and OSError."""
    from train.stages.markdown import around_section, write_bytes_atomic
    from train.stages.results import compare
    from train.stages.tables import markdown, png, verdict_lines

    if arguments.readme is not None:
        around_section(arguments.readme, "stages")  # before the work, not after it
    files = files_that_are_there(arguments.runs)
    results = compare(files, arguments.scenes, arguments.draws, arguments.seed)
    text, figure = markdown(results), png(results)
    told = "".join(f"{line}\n" for line in verdict_lines(results))
    folder: Path = arguments.output_dir
    write_text_atomic(folder / "stages.json", json.dumps(results, indent=1) + "\n")
    write_text_atomic(folder / "stages.md", text)
    write_text_atomic(folder / "verdicts.txt", told)
    for path in (folder / "stages.png", arguments.figure):
        if path is not None:
            write_bytes_atomic(path, figure)
    if arguments.readme is not None:
        shown = arguments.figure or folder / "stages.png"
        link = f"![The stages, group by group]({os.path.relpath(shown, arguments.readme.parent)})\n"
        before, after = around_section(arguments.readme, "stages")
        write_text_atomic(arguments.readme, f"{before}\n{text}\n{link}{after}")
    print(f"{told}{folder}: stages.md, stages.json, stages.png, verdicts.txt")


def files_that_are_there(runs: Sequence[str]) -> dict[tuple[str, str], Path]:
    """The file of each (seed, name), in order; says which are not there. Raises RecordError."""
    files: dict[tuple[str, str], Path] = {}
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


if __name__ == "__main__":
    sys.exit(main())
