"""Checks the model and the data of a fine-tuning run in seconds, before anything heavy starts.

python train/check_sft_inputs.py --model DIR_OR_HUB_NAME --dataset FILE
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser


def main() -> None:
    """Count the rows, or name the first mistake and exit with 2."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    args = parser.parse_args()
    from emocaliber.jsonl import RecordError, read_jsonl

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
    from emocaliber.jsonl import RecordError

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
    """One chat: messages that end with the assistant's, no more `<image>` than pictures, pictures that exist.

    What ms-swift adds by itself (a missing `<image>`) and what it fetches (addresses) is left to it.
    """
    from emocaliber.jsonl import RecordError

    messages = row.get("messages")
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(message, dict) for message in messages)
        or messages[-1].get("role") != "assistant"
    ):
        raise RecordError(f"{where}: no `messages` that end with the assistant's answer; give ms-swift chats")
    paths = image_paths(row.get("images"))
    marks = sum(str(message.get("content")).count("<image>") for message in messages)
    if marks > len(paths):
        raise RecordError(f"{where}: {marks} <image> in the messages for {len(paths)} images; name each one")
    for path in paths:
        if path and "://" not in path and not (image_root / path).is_file():
            raise RecordError(
                f"{where}: {image_root / path} is missing; set IMAGE_ROOT to the pictures' folder"
            )


def image_paths(images: Any) -> list[str]:
    """The paths of `images` in any form that ms-swift takes; an empty one for one given by its bytes."""
    listed = images if isinstance(images, list) else [images] if images else []
    return [str(image.get("path") or "") if isinstance(image, dict) else str(image) for image in listed]


if __name__ == "__main__":
    main()
