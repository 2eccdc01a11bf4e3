"""A checkpoint's tokenizer and chat template: messages to text, text to token ids."""

import copy
import threading
from collections.abc import Sequence
from typing import Any

from backend import EngineError


class ChatTokenizer:
    """Renders and encodes; may be called from several threads."""

    def __init__(self, checkpoint: str, tokenizer: Any = None) -> None:
        """Load a checkpoint's tokenizer, or copy the one given: encoding in two threads breaks a shared one.

        Raises EngineError if the checkpoint has no chat template.
        """
        if tokenizer is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._tokenizer = copy.deepcopy(tokenizer)
        self._lock = threading.Lock()
        self.template = self._tokenizer.chat_template or _processor_template(checkpoint)

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Give the text of chat messages, up to where the next answer begins."""
        with self._lock:
            return str(
                self._tokenizer.apply_chat_template(
                    messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
                )
            )

    def encode_text(self, text: str) -> list[int]:
        """Give the token ids of a text, with nothing added."""
        with self._lock:
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

    def encode(self, messages: list[dict[str, Any]]) -> list[int]:
        """Give the token ids of rendered chat messages, one for each image."""
        return self.encode_text(self.render(messages))

    @property
    def image_token_id(self) -> int:
        """The id of the token that stands for an image in Qwen2-VL's templates."""
        ids = self.encode_text("<|image_pad|>")
        return ids[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of token ids, special tokens left out."""
        with self._lock:
            return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _processor_template(checkpoint: str) -> str:
    from transformers import AutoProcessor

    template = AutoProcessor.from_pretrained(checkpoint).chat_template
    if not template:
        raise EngineError(f"{checkpoint} has no chat template (chat_template.jinja); copy its base model's")
    return str(template)
