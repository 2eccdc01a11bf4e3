"""A record as a chat completion: its images inside, at the size that the pixel limits imply."""

import base64
import io
from collections.abc import Mapping
from typing import Any

from backend import Asking
from image_input import RowError, load_image, locate, resized
from PIL import Image
from prepare import chat_messages, row_seed

from emocaliber.jsonl import RecordError
from emocaliber.records import record_candidates, record_images
from emocaliber.response import response_pattern


def completion_fields(
    record: Mapping[str, Any], asking: Asking, factor: int
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Give the fields of a row's chat completion, and (width, height) in pixels of each image as it is sent.

    Images are resized to multiples of `factor` within the limits, so that a server that resizes by the same
    rule leaves them as they are, and one that has other limits still gets no other number of pixels. The
    field `structured_outputs` of a constrained row is that of vLLM's server. Raises RowError.
    """
    try:
        messages = chat_messages(record, asking.prompt)
        images = [load_image(locate(asking.image_root, name)) for name in record_images(record)]
        images = [_within_limits(image, asking, factor) for image in images]
        fields: dict[str, Any] = {
            "messages": _with_images(messages, images),
            "temperature": asking.temperature,
            "top_p": asking.top_p,
            "max_tokens": asking.max_new_tokens,
            "n": asking.n_samples,
            "seed": row_seed(asking.seed, record["id"]),
        }
        if asking.constrain:
            fields["structured_outputs"] = {"regex": _pattern(record, asking)}
    except RecordError as error:
        raise RowError("prompt_invalid", str(error)) from None
    return fields, [image.size for image in images]


def _pattern(record: Mapping[str, Any], asking: Asking) -> str:
    candidates = record_candidates(record)
    try:
        return _sendable(
            response_pattern(asking.prompt or "published", candidates, longest_section=asking.longest_section)
        )
    except ValueError as error:  # a label that no response could name
        raise RowError("prompt_invalid", str(error)) from None


def _within_limits(image: Image.Image, asking: Asking, factor: int) -> Image.Image:
    height, width = resized(image.height, image.width, factor, asking.min_pixels, asking.max_pixels)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC)  # as Qwen2-VL's image processor does


def _with_images(messages: list[dict[str, Any]], images: list[Image.Image]) -> list[dict[str, Any]]:
    """Put the images, in order, where the messages have an item for one."""
    left = iter(images)

    def sent(item: dict[str, Any]) -> dict[str, Any]:
        if item["type"] != "image":
            return {"type": "text", "text": _sendable(item["text"])}
        return {"type": "image_url", "image_url": {"url": data_url(next(left))}}

    return [
        {
            "role": message["role"],
            "content": _sendable(content) if isinstance(content, str) else [sent(item) for item in content],
        }
        for message in messages
        for content in [message["content"]]
    ]


def _sendable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError("prompt_invalid", "the text has half a surrogate pair; UTF-8 cannot hold it") from None
    return text


def data_url(image: Image.Image) -> str:
    """Give an image as a `data:` address, a PNG: every pixel arrives as it is."""
    file = io.BytesIO()
    image.save(
        file, "PNG", compress_level=1
    )  # four times as fast as the default for a few percent more bytes
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
