"""What a server's reply to a question says: the completion in it, or by which failure there is none."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

SERVER_ERROR, SERVER_TIMEOUT = "server_error", "server_timeout"
SERVER_MALFORMED, REQUEST_REFUSED = "server_malformed", "server_refused"
SERVERS_OWN = frozenset({SERVER_ERROR, SERVER_TIMEOUT, SERVER_MALFORMED})
"""Types of failures that are the server's, not the question's: asked again, they may pass."""


@dataclass(frozen=True)
class Completion:
    """What a question got: a text for each sample ("" for none), and tokens as the server counts them.

    `n_response_tokens`: of all samples together.
    """

    texts: list[str]
    finish_reason: str | None
    refusal: str | None
    model: str | None
    n_prompt_tokens: int | None
    n_response_tokens: int | None
    latency_s: float


@dataclass(frozen=True)
class Failure:
    """A question that got nothing. `type`: one of this module, or the asker's own."""

    type: str
    message: str


@dataclass
class Counts:
    """Requests sent, the retries among them, and what came of each.

    An outcome is a status of HTTP, `timeout`, `no answer`, `malformed` or `cancelled`. The tokens are
    those of the completions that told them.
    """

    requests: int = 0
    retries: int = 0
    by_outcome: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    response_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Give them as JSON has them."""
        return {**vars(self), "by_outcome": dict(sorted(self.by_outcome.items()))}


def read_completion(body: str, latency_s: float, hidden: Callable[[str], str]) -> Completion:
    """Read the JSON of a chat completion; `hidden` takes secrets out of its texts.

    Raises ValueError for JSON that is none, or holds no completion.
    """
    try:
        completion = json.loads(body)
        choices = sorted(completion["choices"], key=lambda choice: choice.get("index") or 0)
        first = choices[0]
        texts = [choice["message"].get("content") for choice in choices]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError("a choice's content is no text")
        finish_reason, refusal = first.get("finish_reason"), first["message"].get("refusal")
        if finish_reason is None and not any(texts):
            raise ValueError("neither a text nor a finish_reason")
        usage = completion.get("usage") or {}
        return Completion(
            [hidden(text or "") for text in texts],
            _text(finish_reason, hidden),
            _text(refusal, hidden),
            _text(completion.get("model"), hidden),
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            round(latency_s, 3),
        )
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _text(value: Any, hidden: Callable[[str], str]) -> str | None:
    return hidden(value) if value and isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3: seconds or a date), or the milliseconds that some send."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            after_s = float(headers[name]) * unit_s
            if after_s >= 0:  # "nan" is a number to float()
                return after_s
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
