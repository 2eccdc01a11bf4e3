"""ms-swift with another vocabulary: all image tokens of a row are there, a lost one stops the run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHECKPOINT = ROOT / "models" / "EmoCaliber-mini"

# In a process of its own: the plugin patches a class of ms-swift for good.
ENCODE_A_ROW = """
import importlib.util, json, sys
from swift import get_processor, get_template
from PIL import Image

def plugin():
    spec = importlib.util.spec_from_file_location("swift_plugin", sys.argv[2])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def count():
    processor = get_processor(sys.argv[1], model_type="qwen2_5_vl")
    template = get_template(processor, template_type="qwen2_5_vl")
    template.set_mode("train")
    messages = [{"role": "user", "content": "<image>Which?"}, {"role": "assistant", "content": "awe"}]
    row = {"messages": messages, "images": [Image.new("RGB", (200, 150), "red")]}
    encoded = template.encode(row)
    image_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return list(encoded["input_ids"]).count(image_id), encoded["image_grid_thw"].tolist()

before = count()
module = plugin()
after = count()
from swift.dataset import LazyLLMDataset

def lose_tokens(row, **kwargs):
    module.check_image_tokens([1, 7, 2], 7, [[1, 8, 8]], 4)

try:
    LazyLLMDataset([{}] * 3, lose_tokens)[0]
    refused = ""
except SystemExit as error:
    refused = str(error)
print("RESULT" + json.dumps({"before": before, "after": after, "refused": refused}))
"""


@pytest.fixture(scope="module")
def result() -> dict:
    environment = os.environ | {"MIN_PIXELS": "3136", "MAX_PIXELS": "12544", "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        "-c",
        ENCODE_A_ROW,
        str(CHECKPOINT),
        str(ROOT / "train" / "sft" / "swift_plugin.py"),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.split("RESULT")[1])


@pytest.mark.slow
def test_without_the_plugin_the_picture_is_lost(result: dict) -> None:
    """The trap itself: should a later ms-swift mend it, the plugin can go."""
    found, grid = result["before"]
    assert found < grid[0][1] * grid[0][2] // 4


@pytest.mark.slow
def test_with_the_plugin_every_image_token_is_there(result: dict) -> None:
    """200 x 150 within 12,544 pixels becomes 112 x 84 (multiples of 28): 4 x 3 tokens."""
    assert result["after"] == [12, [[1, 6, 8]]]


@pytest.mark.slow
def test_a_wrong_count_stops_the_run(result: dict) -> None:
    """Also through the data set of ms-swift, which passes over a row that raises an Exception."""
    assert result["refused"].startswith("error: a row holds 1 image tokens where its pictures make 16")
