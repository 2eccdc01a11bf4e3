"""Builds VECBench-mini: procedural pictures with a known label distribution, test split and training files.

    python data/build_mini.py --output-dir data/VECBench-mini               # test split only
    python data/build_mini.py --output-dir data/VECBench-mini --split train # captions, stages 1 to 3

The same seed gives the same files bit by bit. A split that is complete (its manifest is there, and says the
same arguments and the sums that its JSON lines have) is left as it is; anything else is built anew beside it
and moved into place at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import write_jsonl_atomic, write_text_atomic
from emocaliber.mini.chains import CAPTION_PROMPT, caption, reasoning
from emocaliber.mini.drawing import draw
from emocaliber.mini.scene import Scene, sample_scene
from emocaliber.mini.world import posterior
from emocaliber.prompts import conversation, training_chat, user_prompt
from emocaliber.provenance import file_sha256
from emocaliber.response import render
from emocaliber.taxonomy import TASKS, rows_of_task

# Rises whenever the same seed would give other files, so that an old build is not taken for a new one.
BUILD_VERSION = 1
IMAGE_SIZES = (112, 140, 168, 196, 224)

# Shares of the in-distribution tasks in each training stage.
TASK_SHARES = {
    "EmoSet-8": 0.20,
    "WebEmo-25": 0.26,
    "WebEmo-7": 0.18,
    "FI-8": 0.10,
    "WebEmo-2": 0.14,
    "FI-2": 0.12,
}

# 60 / 30 / 10, as VEC-CoT is split.
STAGE_SHARES = {"stage1": 0.6, "stage2": 0.3, "stage3": 0.1}
STYLES = {"Abstract-8": "abstract", "Artphoto-8": "ink"}
BAR: dict[str, Any] = {"unit": "image", "mininterval": 1.0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(lambda: build_or_keep(parse_arguments(argv)))


def build_or_keep(args: argparse.Namespace) -> None:
    """Build one split, or say that it is there."""
    folder: Path = args.output_dir
    arguments: dict[str, Any] = {"build_version": BUILD_VERSION, "seed": args.seed}
    arguments |= {"n_test": args.n_test} if args.split == "test" else {"n_train": args.n_train}
    if args.test_rows:
        arguments["test_rows"] = dict(sorted(args.test_rows.items()))
    if args.without_confidence:
        arguments["without_confidence"] = True
    if is_complete(folder, args.split, arguments):
        print(f"{folder}: the {args.split} split is already built")
        return
    build(folder, args, arguments)
    print(f"{folder}: {args.split} split built")


def build(folder: Path, args: argparse.Namespace, arguments: dict[str, Any]) -> None:
    """Build the split beside the folder's content, then move it into place, the manifest last."""
    partial = folder / f".building-{args.split}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if args.split == "test":
        build_test(partial, args)
    else:
        build_train(partial, args)
    images = Path("images") / args.split
    sums = {path.name: file_sha256(path) for path in sorted(partial.glob("*.jsonl"))}
    manifest = {
        "arguments": arguments,
        "sha256": sums,
        "n_images": count_images(partial / images),
        "image_sha256": hash_images(partial / images),
    }
    manifest_path(folder, args.split).unlink(missing_ok=True)
    shutil.rmtree(folder / images, ignore_errors=True)
    (folder / images).parent.mkdir(exist_ok=True)
    (partial / images).rename(folder / images)
    for name in sums:
        (partial / name).replace(folder / name)
    shutil.rmtree(partial)
    write_text_atomic(manifest_path(folder, args.split), json.dumps(manifest, indent=1) + "\n")


def manifest_path(folder: Path, split: str) -> Path:
    """Where the split's arguments and sums are."""
    return folder / f"manifest_{split}.json"


def count_images(folder: Path) -> int:
    """Count the pictures in a folder and those below it."""
    return sum(1 for _ in folder.rglob("*.jpg"))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--output-dir", type=Path, required=True)
    add("--split", choices=("test", "train"), default="test")
    add("--n-test", type=int, default=220, help="test rows of each task (default 220)")
    add("--test-rows", nargs="+", default=[], metavar="TASK=N", help="instead of --n-test, of one task each")
    add("--n-train", type=int, default=16000, help="training rows of all stages (default 16000)")
    add("--seed", type=int, default=0)
    add(
        "--without-confidence",
        action="store_true",
        help="write test_without_confidence.jsonl too: the test rows asked as stage 1 is trained",
    )
    args = parser.parse_args(argv)
    for name in ("n_test", "n_train"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("without_confidence", "test_rows"):
        if getattr(args, name) and args.split != "test":
            parser.error(f"--{name.replace('_', '-')} is for the test split")

    try:
        args.test_rows = dict(rows_of_task(text, at_least=1) for text in args.test_rows)
    except ValueError as error:
        parser.error(f"--test-rows {error}")
    return args


def is_complete(folder: Path, split: str, arguments: dict[str, Any]) -> bool:
    """Whether the split was built to its end with these arguments, and its files are still what they were.

    Says so of a file that has changed since. Pictures are counted only.
    """
    try:
        manifest = json.loads(manifest_path(folder, split).read_text())
        same = manifest["arguments"] == arguments
        there = all((folder / name).is_file() for name in manifest["sha256"])
        if not (same and there and manifest["n_images"] == count_images(folder / "images" / split)):
            return False
        changed = [
            name for name, sha256 in manifest["sha256"].items() if file_sha256(folder / name) != sha256
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    for name in changed:
        print(f"{folder / name}: not as it was built; the split is built anew", file=sys.stderr)
    return not changed


def hash_images(folder: Path) -> str:
    """Give one sum over the names and contents of all pictures."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.jpg")):
        digest.update(
            path.relative_to(folder).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest()
        )
    return digest.hexdigest()


def make_row(
    folder: Path, split: str, task: str, index: int, seed: int
) -> tuple[dict[str, Any], Scene, random.Random]:
    """Draw one scene and its label, save its picture; the record is the published one plus `posterior`."""
    # A name per row as its seed: rows do not depend on one another, and no two splits share one.
    rng = random.Random(f"VECBench-mini/{seed}/{split}/{task}/{index}")
    scene = sample_scene(rng, STYLES.get(task, "photo"), object_against_habit=task == "UnbiasedEmo-6")
    truth = posterior(task, scene)
    label = rng.choices(list(truth), weights=list(truth.values()))[0]
    image = f"images/{split}/{task}/{index:05d}.jpg"
    path = folder / image
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(scene, rng.choice(IMAGE_SIZES)).save(path, quality=92)
    candidates = list(TASKS[task].labels)
    record = {
        "id": f"mini-{split}-{task}-{index:05d}",
        "image": image,
        "conversations": conversation(image, candidates),
        "task": task,
        "ground_truth": label,
        "candidates": candidates,
        "posterior": {name: round(p, 6) for name, p in truth.items()},
    }
    return record, scene, rng


def build_test(folder: Path, args: argparse.Namespace) -> None:
    """Write the test split."""
    records, scenes = [], []
    plan = [(task, index) for task in TASKS for index in range(args.test_rows.get(task, args.n_test))]
    for task, index in tqdm(plan, desc="VECBench-mini test", **BAR):
        record, scene, _ = make_row(folder, "test", task, index, args.seed)
        records.append(record)
        scenes.append({"id": record["id"], "scene": scene.to_json()})
    write_jsonl_atomic(folder / "test.jsonl", records)
    write_jsonl_atomic(folder / "test_scenes.jsonl", scenes)
    if args.without_confidence:
        asked = [record | {"conversations": asked_without_confidence(record)} for record in records]
        write_jsonl_atomic(folder / "test_without_confidence.jsonl", asked)


def asked_without_confidence(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the row's chat as the stage-1 model is trained: without a confidence."""
    return conversation(record["image"], record["candidates"], with_confidence=False)


def plan_train(n_train: int) -> list[tuple[str, str, int]]:
    """(stage, task, index) of every training row, stages apart so that they share no picture."""
    plan = []
    start = dict.fromkeys(TASK_SHARES, 0)
    for stage, stage_share in STAGE_SHARES.items():
        for task, task_share in TASK_SHARES.items():
            count = max(1, round(n_train * stage_share * task_share))
            plan += [(stage, task, start[task] + offset) for offset in range(count)]
            start[task] += count
    return plan


def build_train(folder: Path, args: argparse.Namespace) -> None:
    """Captions, stage-1 chats, stage-2 records with their chain, stage-3 prompts."""
    captions: list[dict[str, Any]] = []
    rows: dict[str, list[dict[str, Any]]] = {stage: [] for stage in STAGE_SHARES}
    for stage, task, index in tqdm(plan_train(args.n_train), desc="VECBench-mini train", **BAR):
        record, scene, rng = make_row(folder, "train", task, index, args.seed)
        image, candidates, label = record["image"], record["candidates"], record["ground_truth"]
        if stage == "stage3":
            rows[stage].append(record)
            continue
        chain = reasoning(scene, label, rng)
        if stage == "stage2":
            rows[stage].append(
                record | {"conversations": asked_without_confidence(record), "reasoning": chain}
            )
            continue
        captions.append({"id": record["id"]} | training_chat(image, CAPTION_PROMPT, caption(scene)))
        named = {key: record[key] for key in ("id", "task", "ground_truth")}
        prompt = user_prompt(candidates, with_confidence=False)
        rows[stage].append(named | training_chat(image, prompt, render(chain, label)))
    files = {"captions": captions, **rows}
    # Tasks in turn would teach one after the other; every file is shuffled once, by the seed.
    for name, content in files.items():
        random.Random(f"VECBench-mini/{args.seed}/{name}").shuffle(content)
        write_jsonl_atomic(folder / f"train_{name}.jsonl", content)


if __name__ == "__main__":
    sys.exit(main())
