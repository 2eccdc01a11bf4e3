"""infer.py with real vLLM: every kind of row, and the same of two engines."""

import json
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

Row = dict[str, Any]
Run = subprocess.CompletedProcess[str]

N_PLAIN = 48
SETTINGS = ("--min-pixels", 3136, "--max-pixels", 12544, "--max-new-tokens", 60, "--seed", 3)
ERRORS = {
    "missing": "image_missing",
    "text": "image_unreadable",
    "cut-off": "image_unreadable",
    "bomb": "image_too_large",
    "narrow": "image_too_narrow",
    "outside": "image_outside_root",
    "long": "prompt_too_long",
    "special": "prompt_invalid",
}
# What an image of each form costs in tokens: worked by hand from its size and the limits above.
FORMS = {
    "grey": 16,
    "palette": 16,
    "cmyk": 16,
    "exif": 10,
    "rgba": 16,
    "16-bit": 16,
    "12-megapixels": 12,
    "one-pixel": 4,
    "strip": 23,
}


def save_forms(folder: Path, draw: Callable[[int, int, int], Image.Image]) -> None:
    square = draw(1, 112, 112)
    square.convert("L").save(folder / "grey.png")
    square.quantize(16).save(folder / "palette.png", transparency=0)
    square.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(2, 224, 112).save(folder / "exif.jpg", exif=exif)
    square.convert("RGBA").save(folder / "rgba.png")
    Image.fromarray(np.asarray(square.convert("L"), np.uint16) * 257).save(folder / "16-bit.png")
    draw(3, 4000, 3000).save(folder / "12-megapixels.jpg")
    draw(4, 1, 1).save(folder / "one-pixel.png")
    draw(5, 1000, 28).save(folder / "strip.png")


def save_faults(folder: Path, draw: Callable[[int, int, int], Image.Image]) -> None:
    (folder / "text.png").write_text("not an image")
    draw(6, 112, 112).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "cut-off.jpg").write_bytes(content[: len(content) * 2 // 3])
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 99) + b"IDAT")
    draw(7, 2500, 10).save(folder / "narrow.png")


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[[int, int, int], Image.Image],
    make_row: Callable[..., Row],
    write_rows: Callable[..., Path],
) -> Path:
    """48 plain rows with rows of every form and every fault between them."""
    folder = tmp_path_factory.mktemp("data")
    save_forms(folder, draw)
    save_faults(folder, draw)
    rows = []
    for number in range(N_PLAIN):
        size = (112, 168, 224)[number % 3]
        draw(number, size, size).save(folder / f"plain-{number}.png")
        rows.append(make_row(f"plain-{number}", f"plain-{number}.png"))
    files = {file.stem: file.name for file in folder.iterdir()}
    special = {"missing": ("gone.png", None), "outside": ("../outside.png", None)}
    special |= {"long": ("grey.png", "why " * 20_000), "special": ("grey.png", "What is <|image_pad|> here?")}
    for place, name in enumerate([*FORMS, *ERRORS]):
        image, text = special.get(name) or (files[name], None)
        rows.insert(3 * place, make_row(name, image, text))
    return write_rows(folder / "test.jsonl", rows)


@pytest.fixture(scope="module")
def whole(
    data: Path, checkpoint: Path, infer: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Run]:
    """A run from its start to its end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, infer("--checkpoint", checkpoint, "--data", data, "--output-dir", folder, *SETTINGS)


def by_id(rows: list[Row]) -> dict[str, Row]:
    return {row["id"]: row for row in rows}


def test_every_row_comes_back_once_in_order(
    whole: tuple[Path, Run], data: Path, read_rows: Callable[[Path], list[Row]]
) -> None:
    folder, run = whole
    assert run.returncode == 0, run.stderr[-3000:]
    asked, rows = read_rows(data), read_rows(folder / "predictions.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in asked]
    for before, row in zip(asked, rows, strict=True):
        assert before.items() <= row.items()
        assert ("response" in row) != ("error" in row)
    assert read_rows(folder / "merged.jsonl") == rows
    assert read_rows(folder / "error.jsonl") == [row for row in rows if "error" in row]
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "error.jsonl",
        "merged.jsonl",
        "predictions.jsonl",
        "run.json",
    ]


def test_only_the_rows_at_fault_have_an_error(
    whole: tuple[Path, Run], read_rows: Callable[[Path], list[Row]]
) -> None:
    errors = {row["id"]: row["error"]["type"] for row in read_rows(whole[0] / "error.jsonl")}
    assert errors == ERRORS


def test_image_tokens_are_what_the_limits_imply(
    whole: tuple[Path, Run], read_rows: Callable[[Path], list[Row]]
) -> None:
    rows = by_id(read_rows(whole[0] / "predictions.jsonl"))
    assert {name: rows[name]["n_image_tokens"] for name in FORMS} == FORMS
    assert {rows[f"plain-{number}"]["n_image_tokens"] for number in range(N_PLAIN)} == {16}


def test_a_response_says_how_it_ended(
    whole: tuple[Path, Run], read_rows: Callable[[Path], list[Row]]
) -> None:
    answered = [row for row in read_rows(whole[0] / "predictions.jsonl") if "response" in row]
    assert {row["finish_reason"] for row in answered} <= {"stop", "length"}
    for row in answered:
        assert 1 <= row["n_response_tokens"] <= 60
        assert (row["n_response_tokens"] == 60) or row["finish_reason"] == "stop"
    assert len({row["response"] for row in answered}) > 10


def test_run_json_holds_the_run(whole: tuple[Path, Run], data: Path) -> None:
    run = json.loads((whole[0] / "run.json").read_text())
    n_rows = N_PLAIN + len(FORMS) + len(ERRORS)
    assert run["result"]["rows"] == n_rows
    assert run["result"]["errors"] == dict(Counter(ERRORS.values()))
    (attempt,) = run["attempts"]
    assert (attempt["status"], attempt["rows_done"]) == ("finished", n_rows)
    assert attempt["generate_s"] > 0
    assert attempt["versions"]["vllm"].startswith("0.24")
    size = {"shortest_edge": 3136, "longest_edge": 12544}
    assert attempt["engine_arguments"]["mm_processor_kwargs"] == {"size": size}


def test_two_engines_and_the_reverse_order_give_the_same_responses(
    whole: tuple[Path, Run],
    data: Path,
    checkpoint: Path,
    infer: Callable[..., Run],
    read_rows: Callable[[Path], list[Row]],
    write_rows: Callable[..., Path],
    tmp_path: Path,
) -> None:
    backwards = write_rows(tmp_path / "backwards.jsonl", read_rows(data)[::-1])
    arguments = ("--checkpoint", checkpoint, "--data", backwards, "--image-root", data.parent, *SETTINGS)
    run = infer(*arguments, "--output-dir", tmp_path / "run", "--workers", 2, "--batch-size", 5)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (
        read_rows(tmp_path / "run" / "predictions.jsonl") == read_rows(whole[0] / "predictions.jsonl")[::-1]
    )
    assert not list((tmp_path / "run").glob("partial*"))
