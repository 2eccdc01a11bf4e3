"""What tests of the training room share."""

import random
from pathlib import Path
from typing import Any

import pytest

from emocaliber.jsonl import read_jsonl

GOLDEN = Path(__file__).parents[1] / "golden" / "mini_responses.jsonl"


def damaged(text: str, rng: random.Random) -> str:
    """One of the faults of rollouts."""
    return rng.choice(
        [
            text[: rng.randrange(len(text))],
            text.replace("</think>", ""),
            text.replace("<confidence>", "<confidence>1"),
            text.replace("answer>", "Answer>").upper(),
            text.split("<confidence>")[0],
            text + text,
            "",
        ]
    )


@pytest.fixture(scope="session")
def thousand_responses() -> list[dict[str, Any]]:
    """Answers of the mini model, half of them damaged, that both engines of stage 3 are held to.

    Rows with `id`, `task`, `ground_truth`, `candidates` and `response`; ids occur more than once.
    """
    rng = random.Random(0)
    chosen = rng.choices([row for _, row in read_jsonl(GOLDEN)], k=1000)
    return [
        row | {"response": damaged(row["response"], rng)} if rng.random() < 0.5 else row for row in chosen
    ]
