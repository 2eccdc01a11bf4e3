"""Makes a model of the last checkpoint of a run of verl, in a folder of its own.

    python train/export_verl_checkpoint.py --from train/output/mini/stage3 --to train/output/mini/stage3/final

A checkpoint that holds the model as transformers reads it (`hf_model` among verl's save_contents) is copied;
of any other verl's own merger makes one, in bfloat16; adapters (LoRA) are added to their weights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from export_checkpoint import ADAPTERS, copy_model_files, export_merged, partial_folder

from emocaliber.command_line import CommandParser


def main() -> None:
    """Find the last checkpoint and export it."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--from", dest="run", type=Path, required=True, help="verl's trainer.default_local_dir"
    )
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    actor = last_checkpoint(args.run)
    if actor is None:
        print(f"error: {args.run}: no whole checkpoint of verl; did the training end?", file=sys.stderr)
        raise SystemExit(2)
    export(actor, args.to)
    print(f"{args.to}: the model of {actor.parent.name}")


def last_checkpoint(run: Path) -> Path | None:
    """The actor's folder in the checkpoint that verl's tracker, written last, names; None without one."""
    try:
        step = int((run / "latest_checkpointed_iteration.txt").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    actor = run / f"global_step_{step}" / "actor"
    return actor if actor.is_dir() else None


def export(actor: Path, target: Path) -> None:
    """Write the model, whole or not at all. Raises CalledProcessError if verl's merger fails."""
    whole = actor / "huggingface"
    if any(whole.glob("*.safetensors")):
        with partial_folder(target) as partial:
            copy_model_files(whole, partial)
        return
    merged = target.with_name(f".{target.name}.merged")
    with partial_folder(merged) as partial:
        command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
        subprocess.run([*command, "--local_dir", str(actor), "--target_dir", str(partial)], check=True)
    adapters = merged / "lora_adapter"
    if (adapters / ADAPTERS).is_file():
        export_merged(adapters, merged, target)
    else:
        with partial_folder(target) as partial:
            copy_model_files(merged, partial)
    shutil.rmtree(merged)


if __name__ == "__main__":
    main()
