"""Makes the untrained EmoCaliber-mini: a Qwen2.5-VL of about a million parameters with a small BPE.

    python train/make_tiny_base.py --train-dir data/VECBench-mini --output-dir DIR

Config, processor, chat template and special tokens are Qwen2.5-VL's own kinds, so transformers, vLLM,
ms-swift and verl read the folder by their ordinary code. The vocabulary is learned from the training files.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import read_jsonl
from emocaliber.prompts import user_prompt
from emocaliber.taxonomy import TASKS
from train.checkpoints.export import partial_folder

VOCABULARY_SIZE = 896
MIN_PIXELS = 4 * 28 * 28
MAX_PIXELS = 112 * 112

# The special tokens of Qwen2.5-VL, in its order.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Writes the same conversation text as Qwen2.5-VL's template for text and image items.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for item in message['content'] -%}
{%- if item['type'] == 'image' or 'image' in item or 'image_url' in item -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif item['type'] == 'video' or 'video' in item -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif 'text' in item -%}
{{ item['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--train-dir", type=Path, required=True, help="folder with train_*.jsonl")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> None:
    """Make the model; its folder appears whole or not at all. Raises RecordError."""
    import torch
    import transformers

    library: Any = transformers
    processor = make_processor(arguments.train_dir, library)
    torch.manual_seed(arguments.seed)
    model = library.Qwen2_5_VLForConditionalGeneration(make_config(processor.tokenizer, library))
    model.generation_config = make_generation_config(processor.tokenizer, library)
    with partial_folder(arguments.output_dir) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.output_dir}: {count:,} parameters, {len(processor.tokenizer)} tokens")


def training_texts(train_dir: Path) -> Iterator[str]:
    """Every text that the model will read or write, with the confidences that stage 2 adds.

    Raises RecordError for files that cannot be read.
    """
    for name in ("train_captions.jsonl", "train_stage1.jsonl"):
        for _, row in read_jsonl(train_dir / name):
            for message in row["messages"]:
                yield message["content"].removeprefix("<image>")

    for _ in range(200):
        for task in TASKS.values():
            yield user_prompt(task.labels)
            yield "<confidence>0.12345</confidence>" * 2


def make_processor(train_dir: Path, library: Any) -> Any:
    """Learn the vocabulary and give a Qwen2.5-VL processor with it; `library` is transformers."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(training_texts(train_dir), trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = library.Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=4096,
    )
    pixels = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    return library.Qwen2_5_VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(size=pixels),
        chat_template=CHAT_TEMPLATE,
    )


def make_config(tokenizer: Any, library: Any) -> Any:
    """Give the sizes of the model."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        # The mini model starts from noise: a spread above the usual 0.02 makes so small a net learn faster.
        "initializer_range": 0.08,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 3,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_heads": 3,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [2],
        "window_size": 112,
        "initializer_range": 0.08,
    }
    return library.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        initializer_range=0.08,
        dtype="float32",
    )


def make_generation_config(tokenizer: Any, library: Any) -> Any:
    """Say where an answer ends and what is never sampled."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return library.GenerationConfig(
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
        # A sampled placeholder of an image has no picture behind it and would break a training step.
        suppress_tokens=[ids["<|image_pad|>"], ids["<|video_pad|>"], ids["<|vision_pad|>"]],
    )


if __name__ == "__main__":
    sys.exit(main())
