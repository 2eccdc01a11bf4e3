"""How many tokens a row costs under a processor: of its images, of the question, of the answer to learn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from emocaliber.jsonl import RecordError
from emocaliber.prompts import SYSTEM_PROMPT

if TYPE_CHECKING:
    from describe_rows import Row

PARTS = ("image", "question", "answer", "all")
"""question: everything but images and answer, with the marks of the chat template around both."""
_PLACEHOLDER = "<image>"
_ROWS_AT_ONCE = 512


class TokenCounter:
    """Counts with the chat template, tokenizer and image processor of a checkpoint; decodes no image."""

    def __init__(self, checkpoint: str, min_pixels: int | None, max_pixels: int | None) -> None:
        from transformers import AutoProcessor

        try:
            self._processor = AutoProcessor.from_pretrained(checkpoint)
            self._images = self._processor.image_processor
            self._merge = self._images.merge_size**2
        except (OSError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RecordError(
                f"{checkpoint}: no processor of Qwen2-VL's kind ({reason}); give --checkpoint another folder"
            ) from None
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self._limits = {name: value for name, value in limits.items() if value is not None}

    def lengths(
        self,
        rows: Iterable[tuple[Row, Mapping[str, Any]]],
        facts: Mapping[str, tuple[int, int, str, str]],
    ) -> dict[str, dict[str, list[int]]]:
        """Split -> part -> tokens of each row whose images could all be read."""
        from tqdm import tqdm

        found: dict[str, dict[str, list[int]]] = {}
        waiting: list[tuple[str, int, str, str, int]] = []
        for row, record in tqdm(rows, desc="tokens", unit="row"):
            if not all(file in facts for file in row.files):
                continue
            n_image = sum(self._of_image(*facts[file][:2]) for file in row.files)
            chat, answer = as_chat(record)
            text = self._processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=not answer)
            waiting.append((row.split, n_image, text, answer, len(row.files)))
            if len(waiting) == _ROWS_AT_ONCE:
                self._count(waiting, found)
        self._count(waiting, found)
        return found

    def _of_image(self, width: int, height: int) -> int:
        return int(self._images.get_number_of_image_patches(height, width, self._limits)) // self._merge

    def _count(
        self, waiting: list[tuple[str, int, str, str, int]], found: dict[str, dict[str, list[int]]]
    ) -> None:
        if not waiting:
            return
        encode = self._processor.tokenizer
        whole = encode([text for _, _, text, _, _ in waiting], add_special_tokens=False)["input_ids"]
        answers = encode([answer for _, _, _, answer, _ in waiting], add_special_tokens=False)["input_ids"]
        for (split, n_image, _, _, n_files), ids, answer_ids in zip(waiting, whole, answers, strict=True):
            of_split = found.setdefault(split, {part: [] for part in PARTS})
            n_text = len(ids) - n_files  # each image stands as one mark in the text
            counts = (n_image, n_text - len(answer_ids), len(answer_ids), n_text + n_image)
            for part, count in zip(PARTS, counts, strict=True):
                of_split[part].append(count)
        waiting.clear()


def as_chat(record: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The messages as a chat template takes them, an item for each image, and the last answer in them."""
    messages = [m for m in record.get("messages") or record.get("conversations") or () if isinstance(m, dict)]
    if not any(message.get("role") == "system" for message in messages):
        messages = [{"role": "system", "content": SYSTEM_PROMPT}, *messages]
    chat, answer = [], ""
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            pieces = content.split(_PLACEHOLDER)
            items: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}] if pieces[0] else []
            for piece in pieces[1:]:
                items += [{"type": "image"}, {"type": "text", "text": piece}]
        else:
            items = [item for item in content or () if isinstance(item, dict)]
        chat.append({"role": message.get("role"), "content": items})
        if message.get("role") == "assistant":
            answer = "".join(str(item.get("text", "")) for item in items)
    return chat, answer
