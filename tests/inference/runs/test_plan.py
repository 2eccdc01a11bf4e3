"""What a run is asked to do: the bound of constrained sections, and what its backend is started from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference.runs.arguments import parse_arguments
from inference.runs.plan import BACKENDS, LARGE_VOCABULARY, LONGEST_SECTION, Plan, make_plan


@pytest.fixture
def data(tmp_path: Path, make_row: Callable[..., Any], write_rows: Callable[..., Path]) -> Path:
    Image.new("RGB", (112, 112)).save(tmp_path / "a.png")
    return write_rows(tmp_path / "test.jsonl", [make_row("r", "a.png")])


def plan_of(data: Path, checkpoint: Path, *options: str) -> Plan:
    what = ["--checkpoint", str(checkpoint), "--data", str(data), "--output-dir", "o", *options]
    return make_plan(parse_arguments(what, description=""))


def test_a_backend_is_started_from_the_checkpoint_and_the_options(
    data: Path, hollow_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"architectures": ["One", "Two"], "max_position_embeddings": 900}
    (hollow_checkpoint / "config.json").write_text(json.dumps(config))
    plan = plan_of(data, hollow_checkpoint, "--batch-size", "7", "--dtype", "float16", "--seed", "3")
    settings, asking = plan.settings, plan.asking
    assert (settings.checkpoint, settings.architectures) == (str(hollow_checkpoint), ("One", "Two"))
    assert (settings.batch_size, settings.dtype, settings.max_model_len) == (7, "float16", 900)
    assert (asking.seed, asking.image_root, asking.confidences) == (3, data.parent, ())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("inference.runs.plan.prepare_environment", lambda **options: None)
    monkeypatch.setitem(BACKENDS, "vllm", lambda *given: given)  # type: ignore[arg-type, return-value]
    assert plan.start_backend() == (settings, asking)  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"vocab_size": LARGE_VOCABULARY}, LONGEST_SECTION),
        ({"text_config": {"vocab_size": LARGE_VOCABULARY + 1}}, None),
        ({}, None),
    ],
)
def test_sections_are_bounded_where_counting_is_cheap(
    config: dict[str, Any], longest: int | None, data: Path, hollow_checkpoint: Path
) -> None:
    (hollow_checkpoint / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", **config}))
    assert plan_of(data, hollow_checkpoint, "--constrain").asking.longest_section == longest
