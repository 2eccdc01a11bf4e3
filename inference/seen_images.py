"""The sums of the images that a row was answered with, so that a later start notices that they are others."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from image_input import RowError, locate

from emocaliber.provenance import file_sha256
from emocaliber.records import Record, RecordError, record_images

IMAGE_SUMS = "images_sha256"
"""The field of an answered row: the SHA-256 sum of each image file, in their order."""
THREADS = 8


def image_sums(record: Mapping[str, Any], image_root: Path) -> list[str] | None:
    """Give the SHA-256 sums of a record's image files; None where one cannot be read any more."""
    try:
        return [file_sha256(locate(image_root, name)) for name in record_images(record)]
    except (OSError, RowError):
        return None


def check_images(records: Iterable[Record], done: Mapping[str, Mapping[str, Any]], image_root: Path) -> None:
    """Raise RecordError if rows were answered with other images than are there now.

    Images that are gone since are no hindrance: their rows have been answered.

    Args:
        records: the rows of the data.
        done: by id, the rows that earlier starts finished; those without sums are not looked at.
    """
    answered = [record for record in records if done.get(record["id"], {}).get(IMAGE_SUMS)]
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            sums = list(pool.map(partial(image_sums, image_root=image_root), answered))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    changed = [
        record
        for record, now in zip(answered, sums, strict=True)
        if now is not None and now != done[record["id"]][IMAGE_SUMS]
    ]
    if changed:
        first = changed[0]
        raise RecordError(
            f"{len(changed)} rows were answered with other images than are there now, the first is "
            f"{first['id']!r} ({', '.join(record_images(first))}); put the images back, give another "
            "--output-dir, or --overwrite"
        )
