"""Lets ms-swift train a Qwen2.5-VL with a vocabulary of its own (`--external_plugins`).

ms-swift 4.6.0 writes the published ids of the image and video placeholders into its template. A checkpoint
with another vocabulary then trains without an error while every picture but its first token is lost. Here the
ids are taken from the tokenizer, and the first rows prove that each picture has as many tokens as its pixels
make.
"""

from __future__ import annotations

from typing import Any

from swift.template.templates.qwen import Qwen2VLTemplate

CHECKED_ROWS = 64


class ImageTokensLost(SystemExit):
    """A row lost image tokens. Not an `Exception`: ms-swift replaces a row that raises one by another row."""


_original_init_processor = Qwen2VLTemplate.init_processor
_original_encode = Qwen2VLTemplate._encode
_rows_to_check = CHECKED_ROWS


def _init_processor(self: Any, processor: Any) -> None:
    _original_init_processor(self, processor)
    if processor is not None:
        self.image_token_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.video_token_id = self.tokenizer.convert_tokens_to_ids("<|video_pad|>")


def _encode(self: Any, inputs: Any) -> dict[str, Any]:
    global _rows_to_check
    encoded: dict[str, Any] = _original_encode(self, inputs)
    grid = encoded.get("image_grid_thw")
    if grid is not None and _rows_to_check > 0:
        _rows_to_check -= 1
        check_image_tokens(list(encoded["input_ids"]), self.image_token_id, grid, self._merge_length())
    return encoded


def check_image_tokens(input_ids: list[int], image_token_id: int, grid: Any, merge_length: int) -> None:
    """Raise ImageTokensLost unless the row holds one image token per merged patch.

    Args:
        input_ids: the encoded row.
        grid: (n_images, 3) patches in time, height and width.
        merge_length: patches that make one token (spatial_merge_size squared).
    """
    expected = int(sum(int(t) * int(h) * int(w) for t, h, w in grid)) // merge_length
    found = sum(token == image_token_id for token in input_ids)
    if found != expected:
        raise ImageTokensLost(
            f"error: a row holds {found} image tokens where its pictures make {expected}: the template's "
            f"image_token_id ({image_token_id}) is not the tokenizer's; train with --external_plugins "
            "train/sft/swift_plugin.py"
        )


def _merge_length(self: Any) -> int:
    return int(self.processor.image_processor.merge_size) ** 2


Qwen2VLTemplate._merge_length = _merge_length
Qwen2VLTemplate.init_processor = _init_processor
Qwen2VLTemplate._encode = _encode
