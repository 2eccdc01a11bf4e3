"""Copies the newest checkpoint of a training run, without optimizer state, to a folder of its own.

    python train/checkpoints/export.py --engine swift --from train/output/mini/stage1 --to DIR
    python train/checkpoints/export.py --engine verl --from train/output/mini/stage3 --to DIR

The folder appears whole or not at all. A checkpoint of LoRA adapters is merged into the model that it was
trained from, so the result is a whole model. One that ms-swift trained in bfloat16 is brought back to it
where FSDP has kept its weights in float32. Of verl's checkpoints the model that was saved with them is taken,
if it was; else verl's own merger makes one of the shards, in bfloat16.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emocaliber.command_line import CommandParser, Failure, run_command
from emocaliber.jsonl import RecordError

ADAPTERS = "adapter_config.json"
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Find the newest checkpoint and export it; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--engine", choices=["swift", "verl"], default="swift", help="what trained (swift)")
    parser.add_argument("--from", dest="run", type=Path, required=True, help="output folder of the run")
    parser.add_argument("--to", type=Path, required=True)
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> None:
    """Export. Raises RecordError where no whole checkpoint is, Failure if verl's merger fails."""
    is_verl = arguments.engine == "verl"
    checkpoint = (newest_verl_checkpoint if is_verl else newest_swift_checkpoint)(arguments.run)
    if checkpoint is None:
        raise RecordError(
            f"{arguments.run}: no whole checkpoint of {arguments.engine}; did the training end?"
        )
    (export_verl if is_verl else export_swift)(checkpoint, arguments.to)
    print(f"{arguments.to}: the model of {checkpoint.parent.name if is_verl else checkpoint.name}")


def newest_swift_checkpoint(run: Path) -> Path | None:
    """The checkpoint-N folder with the highest N that is whole, None if there is none."""
    numbered = []
    for folder in run.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        # The trainer writes its state last: a folder without it is half a checkpoint.
        whole = (folder / "trainer_state.json").is_file() and any(folder.glob("*.safetensors"))
        if number.isdigit() and whole:
            numbered.append((int(number), folder))
    return max(numbered)[1] if numbered else None


def newest_verl_checkpoint(run: Path) -> Path | None:
    """The actor's folder in the checkpoint that verl's tracker, written last, names; None without one."""
    try:
        step = int((run / "latest_checkpointed_iteration.txt").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    actor = run / f"global_step_{step}" / "actor"
    return actor if actor.is_dir() else None


def export_swift(checkpoint: Path, target: Path) -> None:
    """Copy the model's own files, or merge the adapters. Raises RecordError where their base is gone."""
    if (checkpoint / ADAPTERS).is_file():
        base = json.loads((checkpoint / ADAPTERS).read_text(encoding="utf-8"))["base_model_name_or_path"]
        if not Path(base).is_dir():
            raise RecordError(f"{base}: the model of the adapters in {checkpoint} is gone; put it back")
        export_merged(checkpoint, Path(base), target)
        return
    with partial_folder(target) as partial:
        copy_model_files(checkpoint, partial)
        args = checkpoint / "args.json"
        settings = json.loads(args.read_text(encoding="utf-8")) if args.is_file() else {}
        if settings.get("torch_dtype") == "bfloat16":
            bring_to_bfloat16(partial)


def bring_to_bfloat16(folder: Path) -> None:
    """Halve float32 weights in place, file by file, and say so in the config."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if any(tensor.dtype == torch.float32 for tensor in tensors.values()):
            halved = {
                name: tensor.bfloat16() if tensor.dtype == torch.float32 else tensor
                for name, tensor in tensors.items()
            }
            save_file(halved, path, metadata)
    config = folder / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"float32"', '"bfloat16"'), encoding="utf-8")


def export_merged(checkpoint: Path, base: Path, target: Path) -> None:
    """Add the adapters of a checkpoint to the weights of their base, in its own precision, on the CPU."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
    merged = PeftModel.from_pretrained(model, checkpoint).merge_and_unload(safe_merge=True)
    with partial_folder(target) as partial:
        copy_model_files(base, partial, with_weights=False)
        merged.save_pretrained(partial)


def copy_model_files(source: Path, target: Path, *, with_weights: bool = True) -> None:
    """Copy config, processor and tokenizer, and the weights if asked for."""
    for path in sorted(source.iterdir()):
        is_weights = path.suffix == ".safetensors" or path.name == "model.safetensors.index.json"
        if (path.name in MODEL_FILES or is_weights) and (with_weights or not is_weights):
            shutil.copyfile(path, target / path.name)


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that takes the target's place when all is in it."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def export_verl(actor: Path, target: Path) -> None:
    """Copy the model that lies whole beside the actor's shards, else merge them. Raises Failure."""
    whole = actor / "huggingface"
    if any(whole.glob("*.safetensors")):
        with partial_folder(target) as partial:
            copy_model_files(whole, partial)
        return
    merged = target.with_name(f".{target.name}.merged")
    with partial_folder(merged) as partial:
        command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
        command += ["--local_dir", str(actor.absolute()), "--target_dir", str(partial.absolute())]
        # Not in the user's folder, where `-m` would look for modules first.
        if (status := subprocess.run(command, check=False, cwd=Path(__file__).parent).returncode) != 0:
            raise Failure(f"{actor}: verl's merger ended with status {status}; see its output above")
    adapters = merged / "lora_adapter"
    if (adapters / ADAPTERS).is_file():
        export_merged(adapters, merged, target)
    else:
        with partial_folder(target) as partial:
            copy_model_files(merged, partial)
    shutil.rmtree(merged)


if __name__ == "__main__":
    sys.exit(main())
