"""Copies the newest checkpoint of a training run, without optimizer state, to a folder of its own.

python train/export_checkpoint.py --from train/output/mini/stage1 --to train/output/mini/stage1/final
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from emocaliber.command_line import CommandParser

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "model.safetensors.index.json",
)


def main() -> None:
    """Find the newest checkpoint and copy it."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--from", dest="run", type=Path, required=True, help="output folder of the training run"
    )
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    checkpoint = newest_checkpoint(args.run)
    if checkpoint is None:
        print(f"error: {args.run}: no whole checkpoint-N folder; did the training end?", file=sys.stderr)
        raise SystemExit(2)
    export(checkpoint, args.to)
    print(f"{args.to}: the model of {checkpoint.name}")


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint-N folder with the highest N that is whole, None if there is none."""
    numbered = []
    for folder in run.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        # The trainer writes its state last: a folder without it is half a checkpoint.
        whole = (folder / "trainer_state.json").is_file() and any(folder.glob("*.safetensors"))
        if number.isdigit() and whole:
            numbered.append((int(number), folder))
    return max(numbered)[1] if numbered else None


def export(checkpoint: Path, target: Path) -> None:
    """Copy the model's own files; the target appears whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in sorted(checkpoint.iterdir()):
        if path.name in MODEL_FILES or path.suffix == ".safetensors":
            shutil.copyfile(path, partial / path.name)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


if __name__ == "__main__":
    main()
