"""Fine-tuning rows through the real processor and template of ms-swift: tokens, counted and compared."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emocaliber.images import MAX_ASPECT_RATIO, image_tokens
from emocaliber.jsonl import RecordError
from train.sft.rows import Row, Size, text_of
from train.sft.settings import Limits

PATCH_MERGED = 28
"""Pixels along one side of what becomes one image token: patches of 14, merged two by two."""
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
TOKENIZED_AT_ONCE = 2000
BATCH = 8
USED = ("messages", "images")


def check_tokens(rows: Sequence[Row], model: str, root: Path, sizes: dict[str, Size], limits: Limits) -> str:
    """Reject the rows that are too long, encode a batch as training will, and say what a row costs.

    Raises RecordError if the model cannot be read, or if a batch holds other tokens than its pixels make.
    """
    with quiet_swift(root, limits):
        template = load_template(model, limits)
        good = [row for row in rows if not row.reason]
        counted: dict[int, tuple[int, int]] = {}
        for start in range(0, len(good), TOKENIZED_AT_ONCE):
            counted |= count_tokens(
                good[start : start + TOKENIZED_AT_ONCE], template.tokenizer, sizes, limits
            )
        good = [row for row in good if not row.reason]
        encoded = encode_batch(template, good[:: max(1, len(good) // BATCH)][:BATCH], sizes, limits)
    # How the template's text differs in length from the plain rendering: the same for every row.
    extra = max((length - counted[number][0] for number, length in encoded.items()), default=0)
    for row in good:
        total, pictured = counted[row.number]
        if pictured > limits.max_image_tokens:
            row.reject("image_tokens_over_limit", f"{pictured} of at most {limits.max_image_tokens}")
        elif total + extra > limits.max_length:
            row.reject("too_long", f"{total + extra} tokens of at most {limits.max_length}")
    longest = max((counted[row.number][0] + extra for row in good if not row.reason), default=0)
    return f"a batch of {len(encoded)} encoded, longest row {longest} of {limits.max_length} tokens"


@contextlib.contextmanager
def quiet_swift(root: Path, limits: Limits) -> Iterator[None]:
    """Give ms-swift the environment it trains with; it reports here by errors only."""
    os.environ["MIN_PIXELS"], os.environ["MAX_PIXELS"] = str(limits.min_pixels), str(limits.max_pixels)
    os.environ["ROOT_IMAGE_DIR"] = str(root.resolve())
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def load_template(model: str, limits: Limits) -> Any:
    """The template as training has it, with train/sft/swift_plugin.py. Raises RecordError."""
    from swift import get_processor, get_template

    importlib.import_module("train.sft.swift_plugin")
    try:
        processor = get_processor(model, model_type="qwen2_5_vl")
    # The hubs and transformers raise what they like: what it says is what the user has to read.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RecordError(
            f"{model}: no readable processor ({reason}); give a complete checkpoint as MODEL"
        ) from None
    template = get_template(
        processor,
        template_type="qwen2_5_vl",
        default_system=limits.system,
        max_length=None,
        truncation_strategy="raise",
    )
    template.set_mode("train")
    return template


def encode_batch(
    template: Any, batch: Sequence[Row], sizes: dict[str, Size], limits: Limits
) -> dict[int, int]:
    """Encode and collate rows as training will; give the number of tokens by row number.

    A row that ms-swift refuses is rejected. Raises RecordError if it refuses all, if a row has other image
    tokens than the pixels of its images make, or nothing to learn.
    """
    encoded = {}
    for row in batch:
        value = json.loads(row.line)
        try:
            encoded[row.number] = template.encode({key: value[key] for key in USED if key in value})
        # Whatever ms-swift raises here would stop the training later.
        except Exception as error:
            row.reject("not_encodable", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        check_encoded(encoded[row.number], row, template.image_token_id, sizes, limits)
    if batch and not encoded:
        raise RecordError(f"line {batch[0].number}: ms-swift cannot encode it: {batch[0].detail}")
    if encoded:
        template.data_collator(list(encoded.values()))
    return {number: len(one["input_ids"]) for number, one in encoded.items()}


def check_encoded(
    encoded: dict[str, Any], row: Row, image_token_id: int, sizes: dict[str, Size], limits: Limits
) -> None:
    """Raise RecordError unless the row has its images' tokens and an answer to learn."""
    local = [sizes[path] for path in row.images if path in sizes]
    expected = sum(tokens_of(size, limits) for size in local)
    found = sum(token == image_token_id for token in encoded["input_ids"])
    if len(local) == len(row.images) and found != expected:
        raise RecordError(
            f"line {row.number}: {found} image tokens where its images make {expected} within "
            f"{limits.min_pixels} to {limits.max_pixels} pixels; does the processor fit the model?"
        )
    if all(label == -100 for label in encoded["labels"]):
        raise RecordError(f"line {row.number}: no token to learn from; does it end with an answer?")


def count_tokens(
    rows: Sequence[Row], tokenizer: Any, sizes: dict[str, Size], limits: Limits
) -> dict[int, tuple[int, int]]:
    """By row number: the tokens of the plain rendering, image tokens included, and the image tokens alone.

    An image given by its bytes or by an address counts as one of `max_pixels`.
    """
    texts = [render_plainly(row, limits.system) for row in rows]
    counted = {}
    for row, tokens in zip(rows, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
        pictured = 0
        for path in row.images:
            size = sizes.get(path)
            if size is None:
                pictured += limits.max_pixels // PATCH_MERGED**2
            elif max(size) > MAX_ASPECT_RATIO * min(size):
                row.reject("image_unreadable", f"{path}: more than {MAX_ASPECT_RATIO} times as long as wide")
            else:
                pictured += tokens_of(size, limits)
        counted[row.number] = (len(tokens) - len(row.images) + pictured, pictured)
    return counted


def tokens_of(size: Size, limits: Limits) -> int:
    """Image tokens of an image that is at most MAX_ASPECT_RATIO times as long as wide."""
    return image_tokens(*size, PATCH_MERGED, limits.min_pixels, limits.max_pixels)


def render_plainly(row: Row, system: str | None) -> str:
    """The chat in Qwen's marks with one placeholder per image."""
    messages = row.messages
    if messages[0].get("role") != "system" and system:
        messages = [{"role": "system", "content": system}, *messages]
    texts = [f"<|im_start|>{message.get('role')}\n{text_of(message)}<|im_end|>\n" for message in messages]
    text = "".join(texts).replace("<image>", VISION)
    return text + VISION * (len(row.images) - text.count(VISION))
