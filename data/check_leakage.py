"""Does any test image occur in training, which tasks share images, and which images are the same?

    python data/check_leakage.py data/VECBench-mini/test.jsonl data/VECBench-mini/train_stage*.jsonl \\
        --output-dir leakage
    python data/check_leakage.py test=test.jsonl train=stage1.jsonl train=stage3.jsonl \\
        --image-root /data/VECBench --output-dir leakage

Two images are the same as one file, by their bytes, by their pixels as shown, or by their looks (perceptual
hashes that differ in at most --radius bits of 64 and --fine-radius bits of 256). Exit status 1 if a test
image occurs in training (unless --allow-leaks), or if some images of test or training could not be compared
(unless --allow-uncompared); 2 if there is no test or no training, or nothing of one can be read. Writes:
    leakage.json           all counts
    leaks.jsonl            each test image that occurs in training, with the training row
    duplicates.jsonl       each copy with the first of its kind, training first
    clusters.json          image of a test split -> group of the same images, for intervals over images
    shared_images.png      which splits and tasks share images; shared_images_exact.png: not by looks
    unreadable.jsonl       images and rows that were left out, by reason
    fingerprints.jsonl     what was read of each image: an interrupted run goes on from it
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

from data.inspection.rows import Source, add_sources, iterate_rows, sources_of
from data.inspection.summary import unreadable
from emocaliber.command_line import CommandParser, run_command
from emocaliber.image_scan import CAN_GO_ON, ImageMemory
from emocaliber.jsonl import RecordError
from emocaliber.report.tables import printable

DEFAULT_RADIUS_BITS, DEFAULT_FINE_RADIUS_BITS = 4, 16
MAX_RADIUS_BITS = 16  # a quarter of the bits: pictures that far apart have little in common


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the images, write the files, and tell by the exit status whether the test is clean."""
    return run_command(lambda: check(parse_arguments(argv)), **CAN_GO_ON)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add_sources(add)
    add("--test", nargs="+", metavar="NAME", help="the splits to test on (default: with the word test)")
    others = "the others without the word val, validation or dev"
    add("--training", nargs="+", metavar="NAME", help=f"the splits to train on (default: {others})")
    add(
        "--radius",
        type=int,
        default=DEFAULT_RADIUS_BITS,
        metavar="BITS",
        help="bits of 64 by which hashes of images that look the same may differ (default: %(default)s)",
    )
    add(
        "--fine-radius",
        type=int,
        default=DEFAULT_FINE_RADIUS_BITS,
        metavar="BITS",
        help="and of their longer hashes, of 256; 256 does not look at these (default: %(default)s)",
    )
    add("--exact-only", action="store_true", help="do not compare by looks")
    add("--allow-leaks", action="store_true", help="exit 0 also if a test image is in training")
    uncompared = "images of a side cannot be read, rows name none, or a side is not there"
    add("--allow-uncompared", action="store_true", help=f"exit 0 also if {uncompared}")
    args = parser.parse_args(argv)
    if not 0 <= args.radius <= MAX_RADIUS_BITS:
        parser.error(f"--radius {args.radius}: give 0 to {MAX_RADIUS_BITS}")
    if not 0 <= args.fine_radius <= 256:
        parser.error(f"--fine-radius {args.fine_radius}: give 0 to 256")
    return args


def check(args: argparse.Namespace) -> int:
    """Write all files, print the answer and give the exit status.

    Raises RecordError where nothing of a side can be compared.
    """
    from data.inspection.leakage import answer, write_report
    from data.inspection.same_images import METHOD, Radius, SharedImages, as_fingerprint, fingerprint

    sources = sources_of(args.files, args.image_root)
    test, training = roles(sources, args)
    left_out: list[dict[str, Any]] = []
    rows = [row for row, _ in iterate_rows(sources, left_out)]
    if not rows:
        raise RecordError(f"{args.files[0]}: no row names an image; give records or chats")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with ImageMemory(args.output_dir / "fingerprints.jsonl", METHOD) as memory:
        every = (file for row in rows for file in row.files)
        prints, faults = memory.gather(every, fingerprint, as_fingerprint, workers=args.workers)
    left_out += unreadable(rows, faults)
    for name in (*test, *training):
        files = [file for row in rows if row.split == name for file in row.files]
        if not files:
            raise RecordError(f"{name}: none of its rows names an image; give records or chats")
        if not any(file in prints for file in files):
            first = f"{faults[files[0]].reason}: {files[0]}"
            raise RecordError(
                f"{name}: none of its {len(files):,} images can be read ({first}); "
                "say by --image-root what its paths are relative to"
            )
    radius = None if args.exact_only else Radius(args.radius, args.fine_radius)
    images = SharedImages(rows, prints, training=training, test=test, radius=radius)
    found = write_report(args.output_dir, images, left_out)
    print("\n".join(answer(found, args.output_dir)))
    leaks = found["test_images_in_training"]["n"] and not args.allow_leaks
    uncompared = any(found["not_compared"].values()) and not args.allow_uncompared
    return int(bool(leaks or uncompared))


def roles(sources: Sequence[Source], args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The splits to test on and to train on.

    Raises RecordError for a name that no file has, for one in both, and where one of the two has none, as
    then nothing is compared (unless --allow-uncompared: duplicates and clusters need no training).
    """
    names = list(dict.fromkeys(source.split for source in sources))
    for name in (*(args.test or ()), *(args.training or ())):
        if name not in names:
            raise RecordError(f"{name}: no file has this name; use one of {', '.join(names)}")
    words = {name: set(re.split(r"[\W_\d]+", name.lower())) for name in names}  # "latest" is no test
    test = args.test if args.test is not None else [name for name in names if "test" in words[name]]
    others = [name for name in names if name not in test]
    named = [name for name in others if not words[name] & {"val", "validation", "dev"}]
    training = args.training if args.training is not None else named
    for name in test:
        if name in training:
            raise RecordError(f"{name}: both a test and a training split; name it in one of them only")
    for side, found in (("test", test), ("training", training)):
        if not found and not args.allow_uncompared:
            raise RecordError(
                f"{', '.join(map(printable, names))}: no {side} split, so nothing would be compared; say "
                f"which by --{side} NAME (a file's stem, or give {side}=FILE), or give --allow-uncompared"
            )
    return list(test), list(training)


if __name__ == "__main__":
    sys.exit(main())
