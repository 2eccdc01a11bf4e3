"""The images of VECBench: each decoded once and its sum kept, and advice where they are missing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from emocaliber.jsonl import JsonlAppender, read_jsonl

_SAMPLED_FOR_ADVICE = 100
_IN_FLIGHT = 256
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


def check_images(root: Path, images: Sequence[str], kept: Path, workers: int) -> Iterator[dict[str, Any]]:
    """Decode every image and yield its row {image, size, mtime_ns, sha256, …} or {image, reason, message}.

    Rows are appended to `kept` as they come; an image that is unchanged since its row there is not read
    again, so that an interrupted check goes on. One whose bytes have changed since has `was_sha256`.
    """
    from tqdm import tqdm

    if kept.exists():
        JsonlAppender(kept).close()  # mends a last line that was cut off
    known = {str(row.get("image")): row for _, row in read_jsonl(kept)} if kept.exists() else {}
    progress = tqdm(total=len(images), desc="images", unit="image", mininterval=1.0)
    pending = iter(images)
    with JsonlAppender(kept) as appender, ThreadPoolExecutor(workers) as pool, progress:
        while window := list(islice(pending, _IN_FLIGHT)):
            for row in pool.map(lambda image: _check_image(root, image, known.get(image)), window):
                if "sha256" in row and row is not known.get(row["image"]):
                    appender.write({name: value for name, value in row.items() if name != "was_sha256"})
                progress.update()
                yield row


def _check_image(root: Path, image: str, known: dict[str, Any] | None) -> dict[str, Any]:
    from emocaliber.images import ImageFault, inspect_image

    stamp: dict[str, Any] = {"image": image}
    try:
        status = os.stat(root / image)
        stamp |= {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    except (OSError, ValueError):
        pass  # inspect_image says why
    if known is not None and stamp.items() <= known.items() and "size" in stamp:
        return known
    try:
        facts = asdict(inspect_image(root / image))
    except ImageFault as fault:
        return stamp | {"reason": fault.reason, "message": fault.message}
    if known is not None and known.get("sha256") != facts["sha256"]:
        facts["was_sha256"] = known.get("sha256")
    return stamp | facts


def advise_on_missing(root: Path, missing: Sequence[str]) -> str:
    """Say which setting would find images that are missing, "" if none does."""
    found: Counter[str] = Counter()
    folders = [folder for folder in islice(root.iterdir(), 1000) if folder.is_dir()] if root.is_dir() else []
    for image in missing[:_SAMPLED_FOR_ADVICE]:
        parts = image.split("/")
        for n_dropped in range(1, len(parts)):
            if (root / "/".join(parts[n_dropped:])).is_file():
                found[f"--strip-prefix {'/'.join(parts[:n_dropped])}"] += 1
                break
        found.update(f"--image-root {folder}" for folder in folders if (folder / image).is_file())
    if found:
        return f"{found.most_common(1)[0][0]} would find images"
    archives = [path.name for path in visible_files(root) if path.name.lower().endswith(_ARCHIVES)]
    return f"unpack {', '.join(archives[:5])} and give --image-root" if archives else ""


def visible_files(root: Path) -> Iterator[Path]:
    """Yield the files under a folder, in order, without hidden ones and those of hidden folders."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))
