"""The build of VECBench for tests: imitated releases, the command in this process, what it wrote."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import raw_trees as trees
from in_process import Result, run

from data import build_vecbench as script
from emocaliber.taxonomy import MIKELS_8

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "data" / "build_vecbench.py"


Row = dict[str, Any]
FILES = ("test.jsonl", "train.jsonl", "rejected.jsonl", "noted.jsonl", "README.md")


def build(raw: Path | list[Path], output: Path, *flags: str) -> Result:
    """The command, in this process and without a pool."""
    folders = sorted(raw.iterdir()) if isinstance(raw, Path) else raw
    return run(script.main, "--raw", *folders, "--output-dir", output, "--workers", "1", *flags)


def built(raw: Path | list[Path], output: Path, *flags: str) -> Path:
    result = build(raw, output, *flags)
    assert result.returncode == 0, result.stderr
    return output


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def left_out(folder: Path) -> Counter[tuple[str, str]]:
    listed = rows(folder / "rejected.jsonl")
    assert all(row["where"] and row["message"] and "\n" not in row["message"] for row in listed)
    return Counter((row["dataset"], row["reason"]) for row in listed)


def make_releases(folder: Path) -> Path:
    """All six, with their oddities."""
    trees.add_emoset_oddities(trees.make_emoset(folder / "EmoSet-118K", {"train": 3, "val": 1, "test": 2}))
    trees.add_fi_oddities(trees.make_fi(folder / "FI", 6))
    trees.add_webemo_oddities(trees.make_webemo(folder / "WEBEmo", {"train": 3, "test": 1}))
    trees.make_unbiased_emo(folder / "UnbiasedEmo", 4)
    trees.make_artphoto(folder / "ArtPhoto", dict.fromkeys(MIKELS_8, 3))
    trees.make_abstract(folder / "Abstract", trees.abstract_rows())
    return folder
