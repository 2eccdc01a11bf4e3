"""Images that look the same: perceptual hashes of each, and all pairs of hashes that differ in few bits.

The hashes are ImageHash's `phash` (https://github.com/JohannesBuchner/imagehash): which of the lowest
frequencies of a small grey copy are above their median. The 64 lowest find the candidates, the 256 lowest
confirm them, as many drawings or landscapes of one composition share the first. Both survive another size,
format or quality and mild changes of brightness; a mirrored or cropped copy has others.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

N_BITS = 64
N_FINE_BITS = 256
METHOD = "sha256, RGB sha256, phash 64, phash 256"
"""Names what `fingerprint` gives: kept facts of another method are not used again."""
_MOST_PARTS_IN_KEY = 4


def fingerprint(path: str) -> dict[str, Any]:
    """Read and decode an image file: what tells it from others, exactly and by its looks.

    Returns:
        sha256 (of the bytes) and pixels_sha256 (of size and RGB pixels as shown, equal to that of
        `emocaliber.images.inspect_image`), phash (64 bits) and fine_phash (256 bits), all as hex.
    Raises:
        ImageFault: the file is no image that can be decoded to its last pixel.
    """
    import imagehash

    from emocaliber.images import inspect_image, open_rgb, pixels_sha256

    sha256 = inspect_image(path, decode=False).sha256
    image = open_rgb(path)
    return {
        "sha256": sha256,
        "pixels_sha256": pixels_sha256(image),
        "phash": str(imagehash.phash(image, hash_size=8)),
        "fine_phash": str(imagehash.phash(image, hash_size=16)),
    }


def pairs_within(hashes: NDArray[np.uint64], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find every pair of hashes that differ in at most `radius` bits; none is missed.

    The 64 bits are cut into radius + k parts. Two hashes at that distance agree in at least k parts, so they
    meet when all are sorted by some k of them: one sort for each choice of k, instead of all n (n - 1) / 2
    comparisons (the pigeonhole principle; Norouzi et al. 2012, "Fast search in Hamming space with multi-index
    hashing"). k grows with n, so that few others share a key.

    Args:
        hashes: [n]; equal ones are pairs too.
        radius: bits, 0 or above; fast as long as it is small against the 64.
    Returns:
        first, second [pairs]: places in `hashes`, first < second, in ascending order.
    """
    import numpy as np

    n = len(hashes)
    found: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for mask in _key_masks(n, radius):
        key = hashes & mask
        order = np.argsort(key, kind="stable")
        key = key[order]
        # In sorted order equal keys stand together: compare neighbours, then those two apart, and so on.
        step, place = 1, np.arange(n - 1)
        while len(place := place[place + step < n]) and len(place := place[key[place] == key[place + step]]):
            one, other = order[place], order[place + step]
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= radius
            one, other = one[near], other[near]
            found.append(np.minimum(one, other) * n + np.maximum(one, other))
            step += 1
    first, second = np.divmod(np.unique(np.concatenate(found)), max(n, 1))
    return first, second


def _key_masks(n: int, radius: int) -> list[np.uint64]:
    """The bits to sort by, one mask for each choice of parts."""
    import numpy as np

    wanted_bits = math.log2(max(n, 2))
    in_key = 1
    while in_key < _MOST_PARTS_IN_KEY and in_key * N_BITS / (radius + in_key) < wanted_bits:
        in_key += 1
    n_parts = radius + in_key
    edges = [N_BITS * part // n_parts for part in range(n_parts + 1)]
    parts = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(parts, in_key)]
