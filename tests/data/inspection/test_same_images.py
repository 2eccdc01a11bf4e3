"""Perceptual hashes that survive what happens to files, and a search that misses no pair."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from skimage import data as photographs

from data.inspection.same_images import fingerprint, pairs_within
from emocaliber.images import ImageFault, inspect_image


def by_comparing_all(hashes: list[int], radius: int) -> list[tuple[int, int]]:
    pairs = combinations(range(len(hashes)), 2)
    return [(i, j) for i, j in pairs if (hashes[i] ^ hashes[j]).bit_count() <= radius]


def found(hashes: list[int], radius: int) -> list[tuple[int, int]]:
    first, second = pairs_within(np.array(hashes, dtype=np.uint64), radius)
    return list(zip(first.tolist(), second.tolist(), strict=True))


flips = st.lists(st.integers(0, 63), max_size=8, unique=True).map(lambda bits: sum(1 << bit for bit in bits))


@given(st.lists(flips, max_size=25), st.integers(0, 2**64 - 1), st.integers(0, 7))
@settings(max_examples=60)
def test_every_pair_within_the_radius_and_no_other(changes: list[int], centre: int, radius: int) -> None:
    hashes = [centre ^ change for change in changes]
    assert found(hashes, radius) == by_comparing_all(hashes, radius)


@pytest.mark.parametrize("radius", [0, 3, 4, 5, 16])
def test_many_hashes_with_planted_neighbours(radius: int) -> None:
    random = np.random.default_rng(radius)
    hashes = [int(value) for value in random.integers(0, 2**64, size=600, dtype=np.uint64)]
    for n_bits in range(8):
        for start in range(5):
            bits = random.choice(64, size=n_bits, replace=False)
            hashes.append(hashes[40 * n_bits + start] ^ sum(1 << int(bit) for bit in bits))
    expected = by_comparing_all(hashes, radius)
    assert len(expected) >= 5
    assert found(hashes, radius) == expected


def distances(one: Path, other: Path) -> tuple[int, int]:
    prints = [fingerprint(str(path)) for path in (one, other)]
    coarse, fine = ([int(p[name], 16) for p in prints] for name in ("phash", "fine_phash"))
    return (coarse[0] ^ coarse[1]).bit_count(), (fine[0] ^ fine[1]).bit_count()


def test_digests_are_those_of_the_library_and_tell_bytes_from_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(photographs.chelsea())
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    one, other = (fingerprint(str(tmp_path / name)) for name in ("a.png", "b.bmp"))
    facts = inspect_image(tmp_path / "a.png")
    assert (one["sha256"], one["pixels_sha256"]) == (facts.sha256, facts.pixels_sha256)
    assert one["sha256"] != other["sha256"]
    assert {**one, "sha256": ""} == {**other, "sha256": ""}
    assert (len(one["phash"]), len(one["fine_phash"])) == (16, 64)


@pytest.mark.parametrize("change", ["quality", "size", "brightness"])
def test_a_changed_copy_stays_within_the_default_radius(tmp_path: Path, change: str) -> None:
    image = Image.fromarray(photographs.chelsea())
    image.save(tmp_path / "original.png")
    if change == "size":
        image = image.resize((image.width // 2, image.height // 2))
    if change == "brightness":
        image = ImageEnhance.Brightness(image).enhance(1.1)
    image.save(tmp_path / "copy.jpg", quality=40 if change == "quality" else 85)
    coarse, fine = distances(tmp_path / "original.png", tmp_path / "copy.jpg")
    assert coarse <= 4 and fine <= 16


def test_another_photograph_is_far_outside_it(tmp_path: Path) -> None:
    Image.fromarray(photographs.chelsea()).save(tmp_path / "cat.png")
    Image.fromarray(photographs.coffee()).save(tmp_path / "cup.png")
    coarse, fine = distances(tmp_path / "cat.png", tmp_path / "cup.png")
    assert coarse > 16 and fine > 64


def test_a_truncated_file_has_no_fingerprint(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(photographs.chelsea()).save(content, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(content.getvalue()[:2000])
    with pytest.raises(ImageFault) as raised:
        fingerprint(str(tmp_path / "cut.jpg"))
    assert raised.value.reason == "image_truncated"
