"""A record as a request to the engine: messages rendered and counted, images decoded, a seed of its own."""

import copy
import hashlib
import os
import re
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from emocaliber.images import (
    MAX_ASPECT_RATIO,
    ImageFault,
    as_shown,
    image_tokens,
    opened_image,
    read_content,
)
from emocaliber.prompts import SYSTEM_PROMPT, prompted
from emocaliber.records import record_candidates, record_images
from inference.backends.backend import Asking, EngineError, Refusal


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
    import transformers

    processors: Any = transformers.AutoProcessor
    template = processors.from_pretrained(checkpoint).chat_template
    if not template:
        raise EngineError(f"{checkpoint} has no chat template (chat_template.jinja); copy its base model's")
    return str(template)


FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, judged by content. Pillow knows more: EPS, for one, runs a PostScript interpreter."""

URL = re.compile(r"://|^(data|https?|ftps?|file|s3|gs|blob|javascript):", re.IGNORECASE)
"""What is not the path of a file, in the name of an image."""


class RowError(Exception):
    """One row cannot be asked; the others can. `type` is the name that the record carries."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message


def locate(image_root: Path, name: str) -> Path:
    """Give the path of a row's image, relative to the root. Raises RowError if it leaves the root.

    Only the name is judged: a symbolic link inside the root may lead elsewhere.
    """
    if URL.search(name) or "\0" in name:
        raise RowError(
            "image_outside_root", f"image {name[:200]!r} is not a path; download it below the root"
        )
    root = os.path.abspath(image_root)
    path = os.path.normpath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        raise RowError(
            "image_outside_root",
            f"image {name[:200]!r} is outside {root}; give --image-root a folder above it",
        )
    return Path(path)


def load_image(path: Path) -> tuple[Image.Image, str]:
    """Decode an image as `emocaliber.images` does, with the SHA-256 sum of its file, which is read once.

    Raises RowError: image_missing, image_unreadable, image_too_large, image_too_narrow; EngineError where
    there is not enough memory.
    """
    try:
        content = read_content(path)
        with opened_image(path, content, known_formats()) as image:
            width, height = image.size
            if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
                limit = f"the model takes sides of at most 1 to {MAX_ASPECT_RATIO}"
                message = f"{path}: {width} x {height} pixels; {limit}"
                raise ImageFault("image_too_narrow", message)
            return as_shown(image), hashlib.sha256(content).hexdigest()
    except ImageFault as fault:
        if fault.reason == "image_missing" and not os.path.exists(path):
            raise RowError("image_missing", f"{fault.message}; check --image-root") from None
        is_size = fault.reason in ("image_too_large", "image_too_narrow")
        raise RowError(fault.reason if is_size else "image_unreadable", fault.message) from None
    except MemoryError as error:  # of this machine, now: another time the row may have its answer
        raise EngineError(f"{error}; free some, or lower --workers") from None


def load_images(record: Mapping[str, Any], image_root: Path) -> tuple[list[Image.Image], list[str]]:
    """Give a row's images and the sums of their files, in their order. Raises RowError, EngineError."""
    loaded = [load_image(locate(image_root, name)) for name in record_images(record)]
    return [image for image, _ in loaded], [sha256 for _, sha256 in loaded]


@lru_cache(maxsize=1)
def known_formats() -> tuple[str, ...]:
    """Give those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@dataclass(frozen=True)
class Request:
    """What the engine is asked for one row; `n_image_tokens` is what the pixel limits imply.

    `messages` and `candidates` are what the prompt was made of, `images_sha256` are the sums of the image
    files. `rendered` is the same as the engine's own input, its images resized and cut into patches.
    """

    id: str
    prompt_token_ids: list[int]
    images: list[Image.Image]
    n_image_tokens: int
    seed: int
    messages: list[dict[str, Any]] = field(default_factory=list, compare=False)
    candidates: tuple[str, ...] = ()
    images_sha256: list[str] = field(default_factory=list)
    rendered: Any = None


def row_seed(seed: int, row_id: str) -> int:
    """Give the sampling seed of a row (31 bits), from nothing but the run's seed and the row's id."""
    digest = hashlib.sha256(f"{seed}:{row_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def chat_messages(record: Mapping[str, Any], prompt: str | None = None) -> list[dict[str, Any]]:
    """Give the messages to render: a system message first, images as bare items, no answer at the end.

    They are those of the record, or, with a `prompt`, that one of `emocaliber.prompts.PROMPTS`. An `<image>`
    in the text of a plain message is an image item, and images that no message mentions come first in the
    first user message. Raises RowError if the items do not match the row's images in number.
    """
    messages = []
    for message in record["conversations"] if prompt is None else prompted(record, prompt):
        role = message.get("role")
        if role not in ("system", "user", "assistant"):
            raise RowError(
                "prompt_invalid", f"a message's role is {role!r:.80}, not system, user or assistant"
            )
        messages.append({"role": role, "content": _content(message.get("content"))})
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages or messages[-1]["role"] != "user":
        raise RowError("prompt_invalid", "conversations do not end in a user message")
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": SYSTEM_PROMPT})
    for text in (item.get("text", "") for message in messages for item in _items(message)):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # JSON can hold it, no tokenizer takes it
            raise RowError("prompt_invalid", "the text holds half a surrogate pair") from None
    n_images = len(record_images(record))
    n_items = sum(item["type"] == "image" for message in messages for item in _items(message))
    if n_items == 0:
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [{"type": "image"}] * n_images + _items(first)
    elif n_items != n_images:
        raise RowError("prompt_invalid", f"conversations show {n_items} images, the row has {n_images}")
    return messages


def _items(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(content: Any) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        if "<image>" not in content:
            return content
        items: list[dict[str, Any]] = []
        for number, text in enumerate(content.split("<image>")):
            items += [{"type": "image"}] * (number > 0) + [{"type": "text", "text": text}] * bool(text)
        return items
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise RowError("prompt_invalid", "a message's content is neither a text nor a list of items")
    items = []
    for item in content:
        if item.get("type") == "image":
            items.append({"type": "image"})
        elif item.get("type") == "text" and isinstance(item.get("text"), str):
            items.append({"type": "text", "text": item["text"]})
        else:
            raise RowError(
                "prompt_invalid", f"a content item is a {item.get('type')!r:.80}, not an image or a text"
            )
    return items


def count_prompt_tokens(
    ids: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    asking: Asking,
    factor: int,
    image_token_id: int,
    forbidden: frozenset[int] = frozenset(),
) -> tuple[int, int]:
    """Give the tokens of a prompt as the model gets it, and those of its images among them.

    Args:
        ids: the rendered prompt, one token for each image.
        sizes: (width, height) of each image in pixels.
        asking: holds the pixel limits.
        factor: the side in pixels of the square that becomes one image token.
        forbidden: tokens that stand for what a row cannot have.
    Raises:
        RowError: the text itself holds such a token, or one of an image.
    """
    if ids.count(image_token_id) != len(sizes) or not forbidden.isdisjoint(ids):
        raise RowError("prompt_invalid", "the text holds a token that stands for an image or a video")
    n_image_tokens = sum(image_tokens(*size, factor, asking.min_pixels, asking.max_pixels) for size in sizes)
    return len(ids) - len(sizes) + n_image_tokens, n_image_tokens


@dataclass(frozen=True)
class Preparer:
    """Makes requests of records, for one checkpoint and what is asked of it.

    `encode` turns chat messages to token ids with one `image_token_id` for each image. A text may hold none
    of the forbidden tokens. `factor`: the side in pixels of the square that becomes one image token.
    `max_model_len`: tokens that prompt and response have at most together.
    """

    encode: Callable[[list[dict[str, Any]]], list[int]]
    asking: Asking
    image_token_id: int
    forbidden_token_ids: frozenset[int]
    factor: int
    max_model_len: int

    @classmethod
    def of_model(
        cls, config: Any, tokenizer: ChatTokenizer, asking: Asking, max_model_len: int
    ) -> "Preparer":
        """Make one for a loaded model; `config` is its configuration as transformers has it."""
        return cls(
            tokenizer.encode,
            asking,
            image_token_id=config.image_token_id,
            forbidden_token_ids=visual_token_ids(config) - {config.image_token_id},
            factor=config.vision_config.patch_size * config.vision_config.spatial_merge_size,
            max_model_len=max_model_len,
        )

    def prepare(
        self, record: Mapping[str, Any], render: Callable[[Request], tuple[Any, int]] | None = None
    ) -> Request | Refusal:
        """Give the request of a row, or the reason why there is none.

        `render` gives a request's `rendered` and the image tokens in it, or raises RowError. Raises
        EngineError if these are not as many as the pixel limits imply.
        """
        try:
            request = self._request(record)
            if render is None:
                return request
            rendered, n_image_tokens = render(request)
        except RowError as error:
            return Refusal(record["id"], error.type, error.message)
        if n_image_tokens != request.n_image_tokens:
            raise EngineError(
                f"row {request.id}: its images have {n_image_tokens} tokens, the limits imply "
                f"{request.n_image_tokens}; this checkpoint's image processor does not keep them"
            )
        return replace(request, images=[], rendered=rendered)

    def _request(self, record: Mapping[str, Any]) -> Request:
        images, sums = load_images(record, self.asking.image_root)
        messages = chat_messages(record, self.asking.prompt)
        ids = self.encode(messages)
        sizes = [image.size for image in images]
        n_tokens, n_image_tokens = count_prompt_tokens(
            ids, sizes, self.asking, self.factor, self.image_token_id, self.forbidden_token_ids
        )
        if n_tokens + 1 > self.max_model_len:  # one token of answer has to fit
            raise RowError(
                "prompt_too_long",
                f"{n_tokens} tokens ({n_image_tokens} of images) and an answer do not fit in "
                f"{self.max_model_len}; raise --max-model-len or lower --max-pixels",
            )
        return Request(
            record["id"],
            ids,
            images,
            n_image_tokens,
            row_seed(self.asking.seed, record["id"]),
            messages,
            tuple(record_candidates(record)),
            sums,
        )

    def prepare_ahead(
        self,
        records: Iterable[Mapping[str, Any]],
        render: Callable[[Request], tuple[Any, int]],
        *,
        threads: int,
        ahead: int,
    ) -> Generator[Request | Refusal, None, None]:
        """Prepare and render rows in order, up to `ahead` of them before they are asked for.

        The engine computes meanwhile: it need not wait for images. `render` is that of `prepare`, called from
        several threads. Raises EngineError as that does.
        """
        rows = iter(records)
        with ThreadPoolExecutor(threads) as pool:
            waiting: list[Future[Request | Refusal]] = []
            try:
                waiting += [pool.submit(self.prepare, row, render) for row in islice(rows, ahead)]
                while waiting:
                    ready = waiting.pop(0)
                    waiting += [pool.submit(self.prepare, row, render) for row in islice(rows, 1)]
                    yield ready.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def visual_token_ids(config: Any) -> frozenset[int]:
    """Give the tokens that stand for images and videos in a model's prompts, of its configuration."""
    return frozenset({config.image_token_id, getattr(config, "video_token_id", None)} - {None})
