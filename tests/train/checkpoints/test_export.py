"""The finished model of a run: the newest checkpoint, whole, without optimizer state, adapters merged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

MINI = Path(__file__).parents[3] / "models" / "EmoCaliber-mini"
SCRIPT = Path(__file__).parents[3] / "train" / "checkpoints" / "export.py"


def export(run: Path, engine: str = "swift") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--engine", engine, "--from", str(run), "--to"]
    command.append(str(run / "final"))
    return subprocess.run(command, capture_output=True, text=True, check=False)


def add_checkpoint(run: Path, number: int, weights: bool = True, state: bool = True) -> None:
    folder = run / f"checkpoint-{number}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"step": {number}}}')
    (folder / "optimizer.pt").write_text("large")
    (folder / "args.json").write_text('{"output_dir": "/a/path/of/the/machine"}')
    if state:
        (folder / "trainer_state.json").write_text("{}")
    if weights:
        (folder / "model.safetensors").write_text(str(number))


def test_the_newest_by_number_is_taken_without_optimizer_or_paths(tmp_path: Path) -> None:
    for number in (90, 100, 9):
        add_checkpoint(tmp_path, number)
    add_checkpoint(tmp_path, 200, weights=False)
    add_checkpoint(tmp_path, 300, state=False)
    assert export(tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "final").iterdir()} == {"config.json", "model.safetensors"}
    assert (tmp_path / "final" / "model.safetensors").read_text() == "100"


def test_a_run_without_weights_is_refused(tmp_path: Path) -> None:
    add_checkpoint(tmp_path, 1, weights=False)
    result = export(tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path}: no whole checkpoint of swift; did the training end?")
    assert not (tmp_path / "final").exists()


def test_float32_copies_of_a_bfloat16_training_are_halved(tmp_path: Path) -> None:
    add_checkpoint(tmp_path, 1, weights=False)
    folder = tmp_path / "checkpoint-1"
    (folder / "args.json").write_text('{"torch_dtype": "bfloat16"}')
    (folder / "config.json").write_text('{"dtype": "float32"}')
    weights = {"a": torch.tensor([1.0, 1.00390625]), "n": torch.tensor([7])}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert export(tmp_path).returncode == 0
    halved = load_file(tmp_path / "final" / "model.safetensors")
    assert halved["a"].dtype == torch.bfloat16 and halved["a"].tolist() == [1.0, 1.0]
    assert halved["n"].tolist() == [7]
    assert json.loads((tmp_path / "final" / "config.json").read_text()) == {"dtype": "bfloat16"}


@pytest.mark.slow
def test_adapters_are_merged_into_a_whole_model(tmp_path: Path) -> None:
    """Random adapters on the query projections: the merged model says what the adapted one says."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    base = AutoModelForImageTextToText.from_pretrained(MINI)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False)
    folder = tmp_path / "checkpoint-1"
    get_peft_model(base, config).save_pretrained(folder)
    (folder / "trainer_state.json").write_text("{}")
    result = export(tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]

    final, tokens = tmp_path / "final", torch.arange(5, 60)[None]
    assert {path.name for path in final.iterdir()} == {path.name for path in MINI.iterdir()} - {"README.md"}
    assert load_file(final / "model.safetensors").keys() == load_file(MINI / "model.safetensors").keys()
    base = AutoModelForImageTextToText.from_pretrained(MINI)
    merged = AutoModelForImageTextToText.from_pretrained(final)
    with torch.no_grad():
        before, after = base(input_ids=tokens).logits, merged(input_ids=tokens).logits
        adapted = PeftModel.from_pretrained(base, folder)(input_ids=tokens).logits
    torch.testing.assert_close(after, adapted, atol=1e-4, rtol=1e-4)
    assert (after - before).abs().max() > 0.1


def test_adapters_without_their_base_are_refused(tmp_path: Path) -> None:
    add_checkpoint(tmp_path, 1)
    settings = {"base_model_name_or_path": str(tmp_path / "gone")}
    (tmp_path / "checkpoint-1" / "adapter_config.json").write_text(json.dumps(settings))
    result = export(tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {tmp_path / 'gone'}: the model of the adapters in {tmp_path / 'checkpoint-1'} is gone; "
        "put it back\n"
    )
    assert not (tmp_path / "final").exists()


def add_verl_checkpoint(run: Path, step: int, weights: str) -> None:
    folder = run / f"global_step_{step}" / "actor" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "config.json").write_text("{}")
    (folder.parent / "optim_world_size_1_rank_0.pt").touch()


def test_the_checkpoint_that_the_tracker_names_is_copied_alone(tmp_path: Path) -> None:
    add_verl_checkpoint(tmp_path, 9, "ninth")
    add_verl_checkpoint(tmp_path, 10, "tenth")
    add_verl_checkpoint(tmp_path, 11, "cut off: the tracker does not know it")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    result = export(tmp_path, "verl")
    assert result.returncode == 0 and "the model of global_step_10" in result.stdout
    assert sorted(path.name for path in (tmp_path / "final").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert (tmp_path / "final" / "model.safetensors").read_text() == "tenth"


@pytest.mark.parametrize("tracker", [None, "", "12"])
def test_no_whole_checkpoint(tmp_path: Path, tracker: str | None) -> None:
    add_verl_checkpoint(tmp_path, 11, "cut off")
    if tracker is not None:
        (tmp_path / "latest_checkpointed_iteration.txt").write_text(tracker)
    result = export(tmp_path, "verl")
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path}: no whole checkpoint of verl; did the training end?\n"
    assert not (tmp_path / "final").exists()
