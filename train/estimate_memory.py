"""Estimates the GPU memory, host memory and disk that training needs: arithmetic, not a measurement.

    python train/estimate_memory.py                        # the tables of train/RESULTS.md
    python train/estimate_memory.py --settings train/settings/stage1_7b_8gpu.yaml --model DIR --gpus 4

In GiB of 2^30 bytes, on one GPU. `train/preflight/machine.py` explains the arithmetic in its head.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError
from train.preflight.machine import GIB, PUBLISHED, estimate_rl, estimate_sft, shape_of
from train.rl.settings import compose
from train.sft.settings import read_settings
from train.stages.markdown import table

SETTINGS = Path(__file__).parent / "settings"
SIZES = {"7b_8gpu": ("7b", 8), "7b_lora_1gpu": ("7b", 1), "3b_2gpu": ("3b", 2)}
"""Model and GPUs of each size of the real run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, or the estimate for one settings file; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--settings", type=Path, help="a yaml of `swift sft`; without it the tables")
    parser.add_argument("--model", type=Path, help="its folder with config.json (default: Qwen2.5-VL-7B)")
    parser.add_argument("--gpus", type=int, default=1)
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> None:
    """Print what was asked for. Raises RecordError."""
    if arguments.settings is None:
        print(f"{sft_table()}\n{rl_table()}", end="")
        return
    config = PUBLISHED["7b"]
    if arguments.model:
        file = arguments.model / "config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecordError(f"{file}: not JSON ({error}); give the folder of a model") from None
    one = estimate_sft(read_settings(arguments.settings), shape_of(config), arguments.gpus)
    print(f"one GPU {one.gpu / GIB:.1f} GiB; a checkpoint {one.checkpoint / GIB:.1f} GiB on the disk")


def sft_table() -> str:
    """The Markdown table of stages 1 and 2, which need the same: a row a size."""
    rows = {}
    for size, (model, gpus) in SIZES.items():
        settings = read_settings(SETTINGS / f"stage1_{size}.yaml")
        one = estimate_sft(settings, shape_of(PUBLISHED[model]), gpus)
        rows[size] = [one.frozen, one.trained, one.gathered, one.activations, one.logits, one.gpu]
        rows[size] += [one.checkpoint, one.final]
    titles = (
        "frozen",
        "trained",
        "gathered",
        "activations",
        "logits",
        "one GPU",
        "checkpoint",
        "final model",
    )
    return gib_table(titles, rows)


def rl_table() -> str:
    """The Markdown table of stage 3: a row a size."""
    rows = {}
    for size, (model, _) in SIZES.items():
        settings = compose(SETTINGS / f"stage3_{size}.yaml")
        one = estimate_rl(settings, shape_of(PUBLISHED[model]))
        rows[size] = [one.training, one.generation, one.host, one.checkpoint]
    return gib_table(("GPU, training", "GPU, generation", "host", "checkpoint"), rows)


def gib_table(titles: Sequence[str], rows: dict[str, list[float]]) -> str:
    """A Markdown table of bytes by size, in GiB."""
    cells = [[f"`{size}`", *(f"{part / GIB:.1f}" for part in parts)] for size, parts in rows.items()]
    return table(["size", *titles], cells, "---:")


if __name__ == "__main__":
    sys.exit(main())
