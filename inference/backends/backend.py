"""What answers rows, whatever it is: the one interface of vLLM, of a server and of transformers."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from emocaliber.command_line import Failure
from emocaliber.response import response_pattern

LIKELIHOOD, P_TRUE = "likelihood", "p_true"
CONFIDENCES = (LIKELIHOOD, P_TRUE)
"""Confidences that need more of the model than its response: see `Answer`."""


@dataclass(frozen=True)
class Takes:
    """What a kind of backend can do; the command line refuses to ask it for the rest.

    `server`: it is at --server-url and needs no checkpoint. `workers`: several can run side by side, each on
    its own GPUs. `constrain`, `confidences`: the options of these names. `batch_size`: the rows that it works
    on at a time where --batch-size does not say.
    """

    server: bool = False
    workers: bool = False
    constrain: bool = False
    confidences: bool = False
    batch_size: int = 256


TAKES = {
    "vllm": Takes(workers=True, constrain=True, confidences=True),
    "server": Takes(server=True, constrain=True, batch_size=32),
    "transformers": Takes(confidences=True),
}
"""By the names of --backend."""


@dataclass(frozen=True)
class Settings:
    """What a backend is started from: the checkpoint as it was looked at, and options of infer.py.

    `checkpoint`: a folder or a name on the hub; of a server's model only a folder is of use.
    `architectures`: the names of its model classes, empty where they are not known. `image_factor`: the side
    in pixels of the square that becomes one image token. `max_model_len`: tokens of prompt and response.
    `batch_size`: rows at a time.
    """

    checkpoint: str
    architectures: tuple[str, ...]
    image_factor: int
    max_model_len: int
    images_per_row: int
    batch_size: int
    dtype: str
    tensor_parallel_size: int
    gpu_memory_utilization: float
    server_url: str | None
    server_model: str | None
    api_key_variable: str
    timeout_s: float


@dataclass(frozen=True)
class Asking:
    """What is asked of every row; together with the model it decides the responses.

    `prompt`: a name of `emocaliber.prompts.PROMPTS`, None for the messages that the record holds.
    `constrain`: the response has to match the grammar of that prompt, in which a section of the reasoning has
    at most `longest_section` characters (None for no limit). `confidences`: of `CONFIDENCES`.
    Pixels are those of an image after resizing. `seed`: with a row's id it gives the row's own.
    """

    image_root: Path
    min_pixels: int
    max_pixels: int
    temperature: float
    top_p: float
    max_new_tokens: int
    n_samples: int = 1
    seed: int = 0
    prompt: str | None = None
    constrain: bool = False
    longest_section: int | None = None
    confidences: tuple[str, ...] = ()

    def pattern(self, candidates: Sequence[str]) -> str | None:
        """Give what a response has to match, None for anything. Raises ValueError for unusable labels."""
        if not self.constrain:
            return None
        prompt = self.prompt or "published"
        return response_pattern(prompt, candidates, longest_section=self.longest_section)


@dataclass(frozen=True)
class Answer:
    """What a row got. Counts are None where the backend does not tell them.

    `candidate_logprobs`: of each candidate, the sum of the log-probabilities (nats) of its tokens and of the
    beginning of the closing tag, after the response's own reasoning and `<answer>`. `p_true`: the probability
    of "True", of "True" and "False", when the model is asked whether its answer is right (Kadavath et al.
    2022, arXiv 2207.05221). None where it was not asked for, or where the response has no answer to ask of.
    `confidence_tokens`: by name, the tokens that each of these took, prompts included. `images_sha256`: the
    sum of each image file, in their order.
    """

    id: str
    response: str
    finish_reason: str | None
    n_image_tokens: int | None
    n_prompt_tokens: int | None
    n_response_tokens: int | None
    samples: list[str] | None = None
    candidate_logprobs: dict[str, float] | None = None
    p_true: float | None = None
    confidence_tokens: dict[str, int] | None = None
    images_sha256: list[str] | None = None


@dataclass(frozen=True)
class Refusal:
    """A row that got no answer, and why."""

    id: str
    type: str
    message: str


class EngineError(Failure):
    """The backend, not a row, failed: the rows that have no answer yet can be asked again later."""


class Backend(Protocol):
    """Something that answers rows. Making it may take minutes; it is then ready to be asked."""

    def __init__(self, settings: Settings, asking: Asking) -> None:
        """Load the checkpoint, or find the server. Raises EngineError, RecordError for a user's mistake."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """How it was started, for run.json. No secrets."""

    def answers(self, records: Iterable[Mapping[str, Any]]) -> Generator[Answer | Refusal | None, None, None]:
        """Yield every row's outcome as it comes, in any order, and None now and then when none has come.

        Reads only as many records as it works on at a time. Whoever is interrupted closes the generator.
        Raises EngineError when the backend fails.
        """


def first_line(error: BaseException) -> str:
    """Give the type of an error and the first line of its message."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def as_output(outcome: Answer | Refusal) -> dict[str, Any]:
    """Give the fields that an outcome adds to its record, the id included."""
    if isinstance(outcome, Refusal):
        return {"id": outcome.id, "error": {"type": outcome.type, "message": outcome.message}}
    return {name: value for name, value in asdict(outcome).items() if value is not None}
