"""Stage-2 confidences: the stated rule, row by row."""

import json
import random
import subprocess
import sys
from decimal import Decimal
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from emocaliber.prompts import conversation
from emocaliber.response import SECTIONS, parse, render

SCRIPT = Path(__file__).parents[2] / "data" / "build_confidence_targets.py"
spec = spec_from_file_location("build_confidence_targets", SCRIPT)
assert spec is not None and spec.loader is not None
targets = module_from_spec(spec)
spec.loader.exec_module(targets)

REASONING = dict.fromkeys(SECTIONS, "Something true.")


def record(number: int) -> dict:
    return {
        "id": f"r{number}",
        "image": f"{number}.jpg",
        "conversations": conversation(f"{number}.jpg", ["awe", "fear"], with_confidence=False),
        "task": "Two",
        "ground_truth": "awe",
        "candidates": ["awe", "fear"],
        "reasoning": REASONING,
    }


def run(folder: Path, sampled: list[dict]) -> subprocess.CompletedProcess[str]:
    (folder / "chains.jsonl").write_text("".join(json.dumps(record(n)) + "\n" for n in range(3)))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sampled))
    command = [sys.executable, str(SCRIPT), "--chains", str(folder / "chains.jsonl")]
    command += ["--samples", str(folder / "samples.jsonl"), "--output", str(folder / "out.jsonl")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_more_agreement_gives_more_confidence_within_the_bounds() -> None:
    means = []
    for agreeing in range(9):
        drawn = [targets.target_confidence(agreeing, 8, random.Random(seed)) for seed in range(300)]
        assert all(Decimal("0.30") <= value <= Decimal("0.95") for value in drawn)
        assert all(value % Decimal("0.05") == 0 for value in drawn)
        means.append(float(sum(drawn)) / len(drawn))
    assert means == sorted(means)
    # By hand, 4 of 8: 0.30 + 0.65 * 4.5 / 9 = 0.625; the noise has mean zero.
    assert abs(means[4] - 0.625) < 0.02
    assert means[0] < 0.40 and means[8] > 0.88


def test_rows_keep_their_chain_and_ask_for_a_confidence(tmp_path: Path) -> None:
    yes, no = render(REASONING, "awe"), render(REASONING, "fear")
    sampled = [record(0) | {"samples": [yes] * 8}, record(1) | {"samples": [no] * 7 + ["nonsense"]}]
    assert run(tmp_path, sampled).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["r0", "r1"]
    parsed = [parse(row["messages"][-1]["content"], ["awe", "fear"]) for row in rows]
    assert all(value.label == "awe" and value.reasoning == REASONING for value in parsed)
    assert parsed[0].confidence > Decimal("0.7") > Decimal("0.55") > parsed[1].confidence
    assert "<confidence>" in rows[0]["messages"][1]["content"]
    assert rows[1]["images"] == ["1.jpg"]


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, [record(0)])
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "--n-samples" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()
