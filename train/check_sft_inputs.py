"""Checks the model and the data of a fine-tuning run in seconds, before anything heavy starts.

python train/check_sft_inputs.py --model DIR_OR_HUB_NAME --dataset FILE
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Count the rows, or name the first mistake and exit with 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    args = parser.parse_args()
    from emocaliber.jsonl import read_jsonl
    from emocaliber.records import RecordError

    try:
        check_model(args.model)
        image_root = Path(os.environ.get("IMAGE_ROOT") or args.dataset.parent)
        count = 0
        for number, row in read_jsonl(args.dataset):
            check_row(row, f"{args.dataset}:{number}", image_root)
            count += 1
        if count == 0:
            raise RecordError(f"{args.dataset}: no rows")
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{args.dataset}: {count} rows, every picture is there; model {args.model}")


def check_model(model: str) -> None:
    """A local folder must hold a config and weights; `owner/name` is left to the hub."""
    from emocaliber.records import RecordError

    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") == 1 and not model.startswith((".", "/", "~")):
            return
        raise RecordError(f"{model}: no such model folder; give a folder or a hub name as MODEL")
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise RecordError(
            f"{model}: no config.json with *.safetensors in it; give a complete checkpoint as MODEL"
        )


def check_row(row: dict[str, Any], where: str, image_root: Path) -> None:
    """One chat: messages that end with the assistant's, one `<image>` per picture, pictures that exist."""
    from emocaliber.records import RecordError

    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or messages[-1].get("role") != "assistant":
        raise RecordError(f"{where}: no `messages` that end with the assistant's answer")
    images = row.get("images") or []
    marks = sum(str(message.get("content")).count("<image>") for message in messages)
    if marks != len(images):
        raise RecordError(f"{where}: {marks} <image> in the messages for {len(images)} images")
    for image in images:
        if not (image_root / image).is_file():
            raise RecordError(
                f"{where}: {image_root / image} is missing; set IMAGE_ROOT to the pictures' folder"
            )


if __name__ == "__main__":
    main()
