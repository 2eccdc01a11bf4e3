"""Estimates the GPU memory and the disk that stages 1 and 2 need: arithmetic, not a measurement.

    python train/estimate_memory.py                        # the table of train/README.md
    python train/estimate_memory.py --settings train/settings/stage1_7b_8gpu.yaml --model DIR --gpus 4

Per GPU, in GiB of 2^30 bytes; FSDP2 gives each of N GPUs an Nth of weights, gradients and optimizer:

    frozen        2 bytes a weight in bfloat16
    trained       4 (the weight, float32 under FSDP2 and for adapters) + 4 (gradient) + 8 (Adam's two moments)
    gathered      2 bytes for each weight of the largest module and of one layer, whole while they compute
    activations   b x L tokens (b rows per device, L = max_length): with checkpointing 2 bytes x hidden for
                  each layer's input, and one layer recomputed, 2 x (8 hidden + 3 intermediate)
    logits        10 bytes (bfloat16, float32 and its gradient) x vocabulary for half of the tokens: the
                  question and its image are not learned from

CUDA itself and the fragments of its allocator take some GiB more. L is the worst case: most rows are shorter.
"""

from __future__ import annotations

import json
from pathlib import Path

from emocaliber.command_line import CommandParser
from train.preflight.machine import GIB, PUBLISHED, estimate, shape_of, table


def main() -> None:
    """Print the table, or the estimate for one settings file."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--settings", type=Path, help="a yaml of `swift sft`; without it the table")
    parser.add_argument("--model", type=Path, help="its folder with config.json (default: Qwen2.5-VL-7B)")
    parser.add_argument("--gpus", type=int, default=1)
    args = parser.parse_args()
    if args.settings is None:
        print(table())
        return
    import yaml

    try:
        settings = yaml.safe_load(args.settings.read_text(encoding="utf-8"))
        config = json.loads((args.model / "config.json").read_text()) if args.model else PUBLISHED["7b"]
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(str(error))
    one = estimate(settings, shape_of(config), args.gpus)
    print(f"one GPU {one.gpu / GIB:.1f} GiB; a checkpoint {one.checkpoint / GIB:.1f} GiB on the disk")


if __name__ == "__main__":
    main()
