"""vLLM and transformers over the same rows: the same texts, and confidences that can be checked."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emocaliber.prompts import SYSTEM_PROMPT

pytestmark = pytest.mark.slow

Row = dict[str, Any]

MIN_PIXELS, MAX_PIXELS = 3136, 12544
SETTINGS = ("--min-pixels", MIN_PIXELS, "--max-pixels", MAX_PIXELS, "--limit", 24)
GREEDY = ("--temperature", 0, "--max-new-tokens", 160, "--confidence", "likelihood", "--confidence", "p_true")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    build = [sys.executable, root / "data" / "build_mini.py", "--output-dir", folder, "--n-test", 3]
    subprocess.run(list(map(str, build)), check=True, timeout=600)
    return folder / "test.jsonl"


@pytest.fixture(scope="module")
def answers(
    data: Path,
    checkpoint: Path,
    infer: Callable[..., subprocess.CompletedProcess[str]],
    read_rows: Callable[[Path], list[Row]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., list[Row]]:
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str, *arguments: object) -> list[Row]:
        asked = ("--checkpoint", checkpoint, "--data", data, "--output-dir", folder / name)
        done = infer(*asked, *SETTINGS, *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return read_rows(folder / name / "predictions.jsonl")

    return run


@pytest.fixture(scope="module")
def of_vllm(answers: Callable[..., list[Row]]) -> list[Row]:
    return answers("vllm", *GREEDY)


@pytest.fixture(scope="module")
def of_transformers(answers: Callable[..., list[Row]]) -> list[Row]:
    return answers("transformers", *GREEDY, "--backend", "transformers")


def test_the_same_texts_tokens_and_endings(of_vllm: list[Row], of_transformers: list[Row]) -> None:
    names = ("id", "response", "finish_reason", "n_image_tokens", "n_prompt_tokens", "n_response_tokens")
    names = (*names, "confidence_tokens")
    assert len(of_vllm) == 24
    assert [[row[name] for name in names] for row in of_transformers] == [
        [row[name] for name in names] for row in of_vllm
    ]
    assert len({row["response"] for row in of_vllm}) > 10


def test_the_same_confidences(of_vllm: list[Row], of_transformers: list[Row]) -> None:
    for one, other in zip(of_vllm, of_transformers, strict=True):
        assert set(one["candidate_logprobs"]) == set(one["candidates"])
        assert other["candidate_logprobs"] == pytest.approx(one["candidate_logprobs"], abs=1e-3)
        assert other["p_true"] == pytest.approx(one["p_true"], abs=1e-6)
    assert len({round(row["p_true"], 6) for row in of_vllm}) > 5


class Reference:
    """The checkpoint and its own processor: a whole chat in, the log-probability of its end out."""

    def __init__(self, checkpoint: Path) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.images = AutoImageProcessor.from_pretrained(checkpoint, use_fast=True)
        self.model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)

    def log_probabilities(self, texts: list[str], image: Path) -> list[float]:
        """Of the tokens of each text from the first on that is not the same in all of them."""
        size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
        seen = self.images(images=[Image.open(image).convert("RGB")], size=size, return_tensors="pt")
        n_image_tokens = int(seen["image_grid_thw"].prod()) // 4
        pad = "<|image_pad|>"
        ids = [self.tokenizer(text.replace(pad, pad * n_image_tokens))["input_ids"] for text in texts]
        n_common = next(place for place, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
        return [self.log_probability(one, n_common, seen) for one in ids]

    def log_probability(self, ids: list[int], start: int, seen: Any) -> float:
        tokens = self.torch.tensor([ids])
        is_image = (tokens == self.model.config.image_token_id).int()
        with self.torch.inference_mode():
            logits = self.model(input_ids=tokens, mm_token_type_ids=is_image, **seen).logits[0]
        log_probabilities = logits.log_softmax(-1)
        return sum(float(log_probabilities[place - 1, ids[place]]) for place in range(start, len(ids)))


def chat(row: Row) -> str:
    """Give the prompt of a row as the checkpoint was trained with it, up to its answer."""
    (message,) = row["conversations"]
    return (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
        f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{message['content'][1]['text']}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_confidences_are_those_of_the_model_written_out(
    of_vllm: list[Row], checkpoint: Path, data: Path
) -> None:
    reference = Reference(checkpoint)
    rows = [row for row in of_vllm if row["response"].count("<answer>") == 1][:4]
    assert len(rows) == 4
    for row in rows:
        image = data.parent / row["image"]
        response, _, rest = row["response"].partition("<answer>")
        endings = [f"{chat(row)}{response}<answer>{label}</" for label in row["candidates"]]
        found = dict(zip(row["candidates"], reference.log_probabilities(endings, image), strict=True))
        assert row["candidate_logprobs"] == pytest.approx(found, abs=1e-3), row["id"]
        question = f'Is the answer "{rest.partition("</answer>")[0]}" right? Reply with True or False only.'
        asked = (
            f"{chat(row)}{row['response']}<|im_end|>\n"
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        true, false = reference.log_probabilities([f"{asked}True", f"{asked}False"], image)
        assert row["p_true"] == pytest.approx(1 / (1 + math.exp(false - true)), abs=1e-5), row["id"]


def test_samples_are_drawn_from_the_rows_seed(answers: Callable[..., list[Row]]) -> None:
    drawn = ("--backend", "transformers", "--temperature", 0.7, "--n-samples", 3, "--max-new-tokens", 40)
    rows = answers("samples", *drawn, "--limit", 6)
    assert all(len(row["samples"]) == 3 and row["samples"][0] == row["response"] for row in rows)
    assert any(len(set(row["samples"])) > 1 for row in rows)
    assert [row["samples"] for row in answers("samples-again", *drawn, "--limit", 6)] == [
        row["samples"] for row in rows
    ]
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}


def test_an_error_of_a_row_is_named_and_the_others_go_on(
    answers: Callable[..., list[Row]], data: Path, tmp_path: Path
) -> None:
    lines = data.read_text().splitlines()
    gone = json.loads(lines[1])
    gone["image"] = gone["conversations"][0]["content"][0]["image"] = "gone.jpg"
    hostile = tmp_path / "hostile.jsonl"
    hostile.write_text("\n".join([lines[0], json.dumps(gone), lines[2]]) + "\n")
    rows = answers(
        *("errors", "--backend", "transformers", "--temperature", 0, "--max-new-tokens", 5),
        *("--data", hostile, "--image-root", data.parent),
    )
    assert [row.get("error", {}).get("type") for row in rows] == [None, "image_missing", None]
