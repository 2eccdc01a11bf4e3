import json
import os
from pathlib import Path

import pytest

from emocaliber.records import RecordError
from inference.runs import checkpoint as module
from inference.runs.checkpoint import open_checkpoint


def mistake(name: object) -> str:
    with pytest.raises(RecordError) as caught:
        open_checkpoint(str(name))
    return str(caught.value)


def test_a_whole_checkpoint_is_known_before_it_is_loaded(hollow_checkpoint: Path) -> None:
    config = {"model_type": "qwen2_5_vl", "text_config": {"max_position_embeddings": 2048}}
    (hollow_checkpoint / "config.json").write_text(json.dumps(config))
    own = {"image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 12544}}}
    (hollow_checkpoint / "processor_config.json").write_text(json.dumps(own))
    found = open_checkpoint(str(hollow_checkpoint))
    assert (found.model_type, found.max_positions, found.own_max_pixels) == ("qwen2_5_vl", 2048, 12544)
    assert found.weights_bytes == (hollow_checkpoint / "model.safetensors").stat().st_size
    assert list(found.files) == [
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
    ]


def test_the_limits_of_older_image_processor_files_are_read(hollow_checkpoint: Path) -> None:
    (hollow_checkpoint / "preprocessor_config.json").write_text(json.dumps({"max_pixels": 999}))
    (hollow_checkpoint / "config.json").write_text(json.dumps({"max_position_embeddings": 77}))
    found = open_checkpoint(str(hollow_checkpoint))
    assert (found.own_max_pixels, found.max_positions) == (999, 77)


def test_the_hash_follows_the_content_not_the_place(hollow_checkpoint: Path, tmp_path: Path) -> None:
    first = open_checkpoint(str(hollow_checkpoint)).sha256
    (hollow_checkpoint / "trainer_state.json").write_text("{}")  # says nothing about the model
    moved = hollow_checkpoint.rename(tmp_path / "moved")
    assert open_checkpoint(str(moved)).sha256 == first
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert open_checkpoint(str(moved)).sha256 != first


def test_large_weights_are_hashed_by_samples(
    hollow_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = hollow_checkpoint / "model.safetensors"
    header = json.dumps({"a": {"data_offsets": [0, 100_000]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(100_000)
    monkeypatch.setattr(module, "HASHED_WHOLE_BYTES", 1000)
    monkeypatch.setattr(module, "SAMPLE_BYTES", 500)
    hashes = set()
    for start, end in ((0, 0), (50_000, 52_000), (len(content) - 1, len(content))):
        weights.write_bytes(content[:start] + b"1" * (end - start) + content[end:])
        hashes.add(open_checkpoint(str(hollow_checkpoint)).sha256)
    assert len(hashes) == 3  # as it was, a layer changed in the middle, the last byte


def test_a_name_of_the_hub_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = open_checkpoint("wudq/EmoCaliber")
    assert (found.name, found.path, found.sha256) == ("wudq/EmoCaliber", None, None)


@pytest.mark.parametrize(
    "name", ["models", "./wudq/EmoCaliber", "/wudq/EmoCaliber", "a/b/c", "../EmoCaliber"]
)
def test_what_looks_like_a_path_has_to_be_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mistake(name) == f"{name}: no such checkpoint folder; check --checkpoint"


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert mistake("models/NoSuch") == "models/NoSuch: no such checkpoint folder; check --checkpoint"


def test_a_folder_with_one_slash_goes_before_the_hub(
    hollow_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hollow_checkpoint.parent.parent)
    name = os.path.join(hollow_checkpoint.parent.name, hollow_checkpoint.name)
    assert open_checkpoint(name).path is not None


def test_a_file_is_not_a_checkpoint(hollow_checkpoint: Path) -> None:
    assert "a file, not a checkpoint folder" in mistake(hollow_checkpoint / "config.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no config.json; give --checkpoint a checkpoint folder"),
        (
            "model.safetensors",
            "no weights (*.safetensors); training has not finished or they were not copied",
        ),
        ("tokenizer.json", "no tokenizer.json; copy the tokenizer of its base model there"),
    ],
)
def test_what_is_missing_is_named(name: str, message: str, hollow_checkpoint: Path) -> None:
    (hollow_checkpoint / name).unlink()
    assert mistake(hollow_checkpoint) == f"{hollow_checkpoint}: {message}"


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_damaged_config_is_named(content: str, hollow_checkpoint: Path) -> None:
    (hollow_checkpoint / "config.json").write_text(content)
    assert mistake(hollow_checkpoint).startswith(f"{hollow_checkpoint / 'config.json'}: not ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        b"\x08\0\0\0\0\0\0\0{}      more",
    ],
)
def test_weights_that_are_not_whole_are_named(content: bytes, hollow_checkpoint: Path) -> None:
    weights = hollow_checkpoint / "model.safetensors"
    weights.write_bytes(content)
    assert f"{weights}: not a whole safetensors file ({len(content)} bytes)" in mistake(hollow_checkpoint)


def test_weights_cut_off_are_named(hollow_checkpoint: Path) -> None:
    weights = hollow_checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "not a whole safetensors file" in mistake(hollow_checkpoint)


def test_a_missing_shard_is_named(hollow_checkpoint: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}}
    (hollow_checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert mistake(hollow_checkpoint) == (
        f"{hollow_checkpoint}: 1 weight files are missing, such as model-2.safetensors; copy them"
    )
