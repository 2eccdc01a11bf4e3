"""Stage-2 confidences: the stated rule, row by row."""

import json
from decimal import Decimal
from pathlib import Path

import in_process
from in_process import Result

from data import build_confidence_targets
from emocaliber.prompts import conversation
from emocaliber.response import SECTIONS, parse, render

REASONING = dict.fromkeys(SECTIONS, "Something true.") | {"analysis": "The signs disagree. It is awe."}
OTHERWISE = REASONING | {"analysis": "The signs disagree. It is fear."}


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


def run(
    folder: Path, sampled: list[dict], chains: list[dict] | None = None, output: str = "out.jsonl"
) -> Result:
    rows = chains or [record(n) for n in range(3)]
    (folder / "chains.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sampled))
    return in_process.run(
        build_confidence_targets.main,
        *("--chains", folder / "chains.jsonl", "--samples", folder / "samples.jsonl"),
        *("--output", folder / output),
    )


def test_the_chain_concludes_with_what_most_samples_name(tmp_path: Path) -> None:
    yes, no = render(REASONING, "awe"), render(OTHERWISE, "fear")
    sampled = [
        record(0) | {"samples": [yes] * 8},
        record(1) | {"samples": [no] * 4 + [yes] * 3 + ["nonsense"]},
        record(2) | {"samples": ["nonsense"] * 8},
    ]
    result = run(
        tmp_path, sampled, [record(n) for n in range(4)]
    )  # the last was not sampled, and is not a failure
    said = "2 rows of 4 chains; left out: 1 without samples, 1 without a sampled label\n"
    assert result.stdout == f"{tmp_path / 'out.jsonl'}: {said}"
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["r0", "r1"]
    first, second = (parse(row["messages"][-1]["content"], ["awe", "fear"]) for row in rows)
    assert (first.label, first.reasoning) == ("awe", REASONING)
    assert (second.label, second.reasoning) == ("fear", OTHERWISE)
    # 8 of 8 and 4 of 8: 0.5 + 0.5 * 8.5 / 9 and 0.5 + 0.5 * 4.5 / 9.
    assert (first.confidence, second.confidence) == (Decimal("0.97"), Decimal("0.75"))
    assert "<confidence>" in rows[0]["messages"][1]["content"]
    assert rows[1]["images"] == ["1.jpg"]


def test_a_chain_that_does_not_end_with_its_label_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for bad in ({"reasoning": OTHERWISE}, {"reasoning": None}):
        chains = [record(0) | bad]
        result = run(tmp_path / "other", [record(0) | {"samples": ["x"]}], chains)
        assert result.returncode == 2
        assert (
            result.stderr == "error: row 'r0': no `reasoning` that concludes with 'awe'; give stage-2 rows\n"
        )


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, [record(0)])
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "--n-samples" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_samples_are_a_list_of_texts(tmp_path: Path) -> None:
    for bad in (5, "<answer>awe</answer>", ["x", None], {}):
        result = run(tmp_path, [record(0) | {"samples": bad}])
        assert result.returncode == 2 and "row 'r0': samples is not a list of texts" in result.stderr
        assert result.stderr.count("\n") == 1 and not (tmp_path / "out.jsonl").exists()


def test_an_output_that_is_a_folder_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, [record(0) | {"samples": [render(REASONING, "awe")]}], output=".")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert str(tmp_path) in result.stderr and "give other paths" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"chains.jsonl", "samples.jsonl"}
