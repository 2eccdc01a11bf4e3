"""Which stage an image belongs to: 60/30/10, no image in two stages, stratified over task and label."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

from vec_cot_rows import Row

STAGES = ("stage1", "stage2", "stage3")
SHARES = (0.6, 0.3, 0.1)


def assign_stages(rows: Sequence[Row], shares: Sequence[float], seed: int) -> None:
    """Set `stage` of every row; all rows of one image, told by its pixels, get the same.

    The stratum of an image is what its rows say together, such as (FI-2 positive, FI-8 awe). Its images, in
    an order drawn by the seed, are sampled systematically with a random start: each stage gets its share of
    the stratum's n images to within one, and its share in expectation however small n is.
    `shares` are of the images and sum to 1.
    """
    says: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        says[row.pixels].add((row.task, row.label))
    strata: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for pixels, rows_say in says.items():
        strata[tuple(sorted(rows_say))].append(pixels)
    bounds = list(accumulate(shares))[:-1]
    stage_of: dict[str, str] = {}
    for stratum, images in strata.items():
        images.sort(key=lambda pixels: _draw(seed, pixels))
        start = _draw(seed, repr(stratum))
        for position, pixels in enumerate(images):
            point = (position + start) / len(images)
            stage_of[pixels] = STAGES[sum(point >= bound for bound in bounds)]
    for row in rows:
        row.stage = stage_of[row.pixels]


def _draw(seed: int, name: str) -> float:
    """A number in [0, 1) that hangs on the seed and the name only."""
    digest = hashlib.sha256(f"VEC-CoT/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
