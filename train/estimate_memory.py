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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser

GIB = 2**30
SETTINGS = Path(__file__).parent / "settings"
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "in_channels": 3,
}
PUBLISHED: dict[str, dict[str, Any]] = {  # config.json of Qwen2.5-VL, the numbers that matter here
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "vision_config": VISION,
    },
    "3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "vision_config": VISION,
    },
}
SIZES = {"7b_8gpu": ("7b", 8), "7b_lora_1gpu": ("7b", 1), "3b_2gpu": ("3b", 2)}


@dataclass(frozen=True)
class Shape:
    """What a Qwen2.5-VL is made of, in weights (not bytes)."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    embeddings: int  # one table, or two where the output has its own
    one_layer: int
    key_value: int
    vision: int
    merger: int

    @property
    def language(self) -> int:
        """The language model with its embeddings."""
        return self.embeddings + self.layers * self.one_layer + self.hidden

    @property
    def total(self) -> int:
        """All weights."""
        return self.language + self.vision + self.merger

    def adapters(self, rank: int) -> int:
        """Low-rank adapters on every linear layer of the language model."""
        h, i, kv = self.hidden, self.intermediate, self.key_value
        return self.layers * rank * (2 * (h + h) + 2 * (h + kv) + 3 * (h + i))


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU by purpose, and bytes on the disk for one checkpoint and for the finished model."""

    frozen: float
    trained: float
    gathered: float
    activations: float
    logits: float
    checkpoint: float
    final: float

    @property
    def gpu(self) -> float:
        """All that one GPU holds at once."""
        return self.frozen + self.trained + self.gathered + self.activations + self.logits


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Count the weights of a Qwen2.5-VL from its config.json, nested (`text_config`) or flat."""
    text = {**config, **config.get("text_config", {})}
    h, i = text["hidden_size"], text["intermediate_size"]
    kv = h // text["num_attention_heads"] * text["num_key_value_heads"]
    attention = 2 * h * h + h + 2 * (h * kv + kv)  # q, k and v have a bias, o has none
    seen = config["vision_config"]
    v, inner, merged = seen["hidden_size"], seen["intermediate_size"], seen["spatial_merge_size"] ** 2
    channels = seen.get("in_channels", seen.get("in_chans", 3))
    patch = v * channels * seen["temporal_patch_size"] * seen["patch_size"] ** 2
    block = 4 * (v * v + v) + 2 * (v * inner + inner) + inner * v + v + 2 * v
    wide = v * merged
    return Shape(
        hidden=h,
        intermediate=i,
        layers=text["num_hidden_layers"],
        vocabulary=text["vocab_size"],
        embeddings=text["vocab_size"] * h * (1 if text["tie_word_embeddings"] else 2),
        one_layer=attention + 3 * h * i + 2 * h,
        key_value=kv,
        vision=patch + seen["depth"] * block,
        merger=v + wide * wide + wide + wide * h + h,
    )


def estimate(settings: Mapping[str, Any], shape: Shape, gpus: int) -> Estimate:
    """The arithmetic in this file's head, for one settings file of `swift sft`."""
    is_full = settings["tuner_type"] == "full"
    trained = shape.language if is_full else shape.adapters(settings["lora_rank"])
    if is_full and not settings["freeze_vit"]:
        trained = shape.total
    frozen = shape.total - trained if is_full else shape.total
    is_sharded = bool(settings.get("fsdp"))
    shards = gpus if is_sharded else 1
    tokens = settings["per_device_train_batch_size"] * settings["max_length"]
    saves_inputs = is_sharded or settings.get("gradient_checkpointing")
    one_layer = 2 * (8 * shape.hidden + 3 * shape.intermediate)
    layers = shape.layers * (2 * shape.hidden if saves_inputs else one_layer)
    table = shape.vocabulary * shape.hidden
    return Estimate(
        frozen=2 * frozen / shards,
        trained=16 * trained / shards,
        gathered=2 * (table + shape.one_layer) if is_sharded else 0,
        activations=tokens * (layers + (one_layer if saves_inputs else 0)),
        logits=10 * shape.vocabulary * tokens / 2,
        checkpoint=(4 + 8) * trained + (2 * frozen if is_full else 0),
        final=4 * trained + 2 * frozen if is_full else 2 * shape.total,
    )


def table() -> str:
    """The Markdown table of train/README.md: one row per size, the same for both stages."""
    import yaml

    lines = [
        "| size | frozen | trained | gathered | activations | logits | one GPU | checkpoint | final model |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size, (model, gpus) in SIZES.items():
        settings = yaml.safe_load((SETTINGS / f"stage1_{size}.yaml").read_text(encoding="utf-8"))
        one = estimate(settings, shape_of(PUBLISHED[model]), gpus)
        parts = (one.frozen, one.trained, one.gathered, one.activations, one.logits, one.gpu)
        cells = [f"{part / GIB:.1f}" for part in (*parts, one.checkpoint, one.final)]
        lines.append(f"| `{size}` | {' | '.join(cells)} |")
    return "\n".join(lines)


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
