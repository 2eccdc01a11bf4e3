"""Any OpenAI-compatible server as a backend: vLLM's own, or a commercial one."""

import base64
import io
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from emocaliber.chat_server import (
    REQUEST_REFUSED,
    SERVERS_OWN,
    ChatClient,
    ChatServer,
    Completion,
    Failure,
    ServerUnusable,
)
from emocaliber.command_line import read_key
from emocaliber.images import resized
from emocaliber.records import record_candidates
from inference.backends.backend import Answer, Asking, EngineError, Refusal, Settings
from inference.backends.prepare import (
    ChatTokenizer,
    RowError,
    chat_messages,
    count_prompt_tokens,
    load_images,
    row_seed,
)


@dataclass
class _Row:
    """A row under way. What is known once its request is made: (width, height) in pixels of each image as it
    is sent, the sums of the image files, and the tokens that the prompt has to have, those of images too.
    """

    record: Mapping[str, Any]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    images_sha256: list[str] = field(default_factory=list)
    expected: tuple[int, int] | None = None


def completion_fields(row: _Row, asking: Asking, factor: int) -> dict[str, Any]:
    """Give the fields of a row's chat completion, and fill in what is known of its images.

    Images are resized to multiples of `factor` within the limits, so that a server that resizes by the same
    rule leaves them as they are, and one that has other limits still gets no other number of pixels. The
    field `structured_outputs` of a constrained row is that of vLLM's server. Raises RowError.
    """
    record = row.record
    try:
        messages = chat_messages(record, asking.prompt)
        images, row.images_sha256 = load_images(record, asking.image_root)
        images = [_within_limits(image, asking, factor) for image in images]
        row.sizes = [image.size for image in images]
        fields: dict[str, Any] = {
            "messages": _with_images(messages, images),
            "temperature": asking.temperature,
            "top_p": asking.top_p,
            "max_tokens": asking.max_new_tokens,
            "n": asking.n_samples,
            "seed": row_seed(asking.seed, record["id"]),
        }
        if asking.constrain:
            pattern = asking.pattern(record_candidates(record)) or ""
            pattern.encode("utf-8")  # a label may hold half a surrogate pair
            fields["structured_outputs"] = {"regex": pattern}
    except ValueError as error:  # of its candidates, or a label that no response could name
        raise RowError("prompt_invalid", str(error)) from None
    return fields


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
            return item
        return {"type": "image_url", "image_url": {"url": data_url(next(left))}}

    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [sent(item) for item in message["content"]]}
        for message in messages
    ]


def data_url(image: Image.Image) -> str:
    """Give an image as a `data:` address, a PNG: every pixel arrives as it is."""
    file = io.BytesIO()
    # Four times as fast as the default for a few percent more bytes.
    image.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


FAILURES_IN_A_ROW = 20
"""After so many rows without an answer the server, not the rows, is at fault."""


class ServerBackend:
    """A server that answers rows; a `backend.Backend`."""

    def __init__(
        self, settings: Settings, asking: Asking, *, max_retries: int = 8, backoff_s: float = 0.5
    ) -> None:
        """See that the server is there and which model it has.

        Where the checkpoint's folder is given, the server's count of every prompt's tokens has to be what
        that and the pixel limits imply. Raises RecordError for a key that cannot be one, EngineError for a
        server that cannot be used.
        """
        key = read_key(settings.api_key_variable)
        self.settings = settings
        self.asking = asking
        self.url = settings.server_url or ""
        self._count = self._count_prompt if Path(settings.checkpoint).is_dir() else None
        self._tokenizer: ChatTokenizer | None = None
        self._loading = threading.Lock()
        server = ChatServer(self.url, key, settings.timeout_s, max_retries, settings.batch_size, backoff_s)
        self._client = ChatClient(server)
        self.model = self._model()

    @property
    def arguments(self) -> dict[str, Any]:
        """How it is asked, for run.json. The key is not among it."""
        settings = self.settings
        return {
            "url": self.url,
            "model": self.model,
            "key_variable": settings.api_key_variable,
            "concurrency": settings.batch_size,
            "timeout_s": settings.timeout_s,
            "factor": settings.image_factor,
        }

    @property
    def counts(self) -> dict[str, Any]:
        """Requests sent so far, what came of them, and the tokens that the server counted; for run.json."""
        return self._client.counts.as_dict()

    def answers(self, records: Iterable[Mapping[str, Any]]) -> Generator[Answer | Refusal | None, None, None]:
        """Yield every row's outcome as it comes, in any order, and None when none came for half a second.

        Keeps `batch_size` rows under way and reads no more records; closing it drops those under way at
        once. A row that fails after all retries is a Refusal, of a type in `SERVERS_OWN` where that is not
        the row's own. Raises EngineError for a server that cannot be used, that counts another number of
        prompt tokens than expected, or that gives no answer to `FAILURES_IN_A_ROW` rows in a row.
        """
        rows = map(_Row, records)
        n_failed, has_answered = 0, False
        try:
            with closing(self._client.answers((row, partial(self._fields, row)) for row in rows)) as coming:
                for came in coming:
                    outcome = None if came is None else self._outcome(*came)
                    yield outcome
                    if isinstance(outcome, Answer):
                        n_failed, has_answered = 0, True
                    elif outcome is not None and self._is_a_fault(outcome, has_answered):
                        n_failed += 1
                        if n_failed >= FAILURES_IN_A_ROW:
                            raise EngineError(
                                f"{self.url}: {n_failed} rows in a row have no answer, the last for "
                                f"{outcome.type} ({outcome.message}); mend the server, or what it is sent"
                            )
        except ServerUnusable as error:
            raise self._unusable(error) from None

    @staticmethod
    def _is_a_fault(refusal: Refusal, has_answered: bool) -> bool:
        """May every row fail like this? A refused request may be the row's own, if others are not refused."""
        return refusal.type in SERVERS_OWN or (refusal.type == REQUEST_REFUSED and not has_answered)

    def _fields(self, row: _Row) -> Mapping[str, Any] | Failure:
        try:
            fields = completion_fields(row, self.asking, self.settings.image_factor)
            if self._count is not None:
                row.expected = self._count(row)
        except RowError as error:
            return Failure(error.type, error.message)
        return {"model": self.model, **fields}

    def _count_prompt(self, row: _Row) -> tuple[int, int]:
        """Count the tokens of a row's prompt and of its images, as the server has to.

        The tokenizer takes seconds to load: it is when the first row is counted, and the server was found.
        """
        with self._loading:  # of several threads one loads it
            own = self._tokenizer = self._tokenizer or ChatTokenizer(self.settings.checkpoint)
        ids = own.encode(chat_messages(row.record, self.asking.prompt))
        factor = self.settings.image_factor
        return count_prompt_tokens(ids, row.sizes, self.asking, factor, own.image_token_id)

    def _outcome(self, row: _Row, outcome: Completion | Failure) -> Answer | Refusal:
        identity = row.record["id"]
        if isinstance(outcome, Failure):
            return Refusal(identity, outcome.type, outcome.message)
        if row.expected is not None and outcome.n_prompt_tokens != row.expected[0]:
            raise EngineError(
                f"row {identity}: {self.url} counts {outcome.n_prompt_tokens} prompt tokens, the "
                f"checkpoint and the pixel limits imply {row.expected[0]} ({row.expected[1]} of images); "
                "serve that checkpoint, with the pixel limits "
                f"{self.asking.min_pixels} and {self.asking.max_pixels}"
            )
        if outcome.refusal or (outcome.finish_reason == "content_filter" and not outcome.texts[0]):
            return Refusal(identity, REQUEST_REFUSED, outcome.refusal or "withheld by a content filter")
        n_samples = self.asking.n_samples
        if len(outcome.texts) < n_samples:
            raise EngineError(
                f"row {identity}: {self.url} gives {len(outcome.texts)} of {n_samples} samples; "
                "ask this server for one"
            )
        return Answer(
            identity,
            response=outcome.texts[0],
            finish_reason=outcome.finish_reason,
            n_image_tokens=None if row.expected is None else row.expected[1],
            n_prompt_tokens=outcome.n_prompt_tokens,
            n_response_tokens=outcome.n_response_tokens,
            samples=outcome.texts[:n_samples] if n_samples > 1 else None,
            images_sha256=row.images_sha256,
        )

    def _model(self) -> str:
        """Give the model's name; asks for the list all the same, to meet a wrong address or key at once."""
        named = self.settings.server_model
        try:
            models = self._client.models()
        except ServerUnusable as error:
            raise self._unusable(error) from None
        except ValueError as error:
            if named is not None:
                return named  # not every server lists its models
            raise EngineError(
                f"{self.url}: lists no models ({error}); correct the address (it ends in /v1), or "
                "name the model"
            ) from None
        if named is None and len(models) != 1:
            listed = ", ".join(models[:20]) or "none"
            raise EngineError(f"{self.url}: it has {len(models)} models ({listed}); name one")
        return models[0] if named is None else named

    def _unusable(self, error: ServerUnusable) -> EngineError:
        if error.status is None:
            return EngineError(f"{error}; start the server, or correct the address")
        if error.status == 404:
            return EngineError(f"{error}; correct the address (it ends in /v1) or the model's name")
        return EngineError(f"{error}; put it into the environment variable {self.settings.api_key_variable}")
