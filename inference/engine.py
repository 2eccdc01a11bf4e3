"""vLLM as this room uses it: a stream of requests in, a stream of answers out."""

import copy
import gc
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine_settings import EngineSettings, engine_arguments, runs_on_cpu
from image_input import RowError
from prepare import PixelBudget, Preparer, Refusal, Request


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the seed is each row's own."""

    temperature: float
    top_p: float
    max_new_tokens: int
    n_samples: int = 1


@dataclass(frozen=True)
class Answer:
    """What the engine gave back for one row."""

    id: str
    response: str
    finish_reason: str
    n_image_tokens: int
    n_prompt_tokens: int
    n_response_tokens: int
    samples: list[str] | None = None


class EngineError(RuntimeError):
    """The engine, not a row, failed: the rows that have no answer yet can be asked again later."""


class Engine:
    """A loaded checkpoint that answers a stream of requests, many at a time."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the checkpoint: seconds for a small one, minutes for a large one. Raises EngineError."""
        try:
            import vllm
            from vllm.sampling_params import RequestOutputKind

            self.settings = settings
            self.arguments = engine_arguments(settings, on_cpu=runs_on_cpu())
            self._llm = vllm.LLM(**self.arguments)
        except Exception as error:
            raise EngineError(f"vLLM could not load {settings.checkpoint}: {_first_line(error)}") from error
        self._sampling_params = vllm.SamplingParams
        self._final_only = RequestOutputKind.FINAL_ONLY
        self._engine = self._llm.llm_engine
        self._hf_config = self._engine.model_config.hf_config
        if not hasattr(self._hf_config, "image_token_id"):
            raise EngineError(f"{settings.checkpoint} is a {self._hf_config.model_type}: it takes no images")
        # A copy of its own, under a lock: prompts are encoded in other threads than the engine's.
        self._tokenizer = copy.deepcopy(self._llm.get_tokenizer())
        self._tokenizer_lock = threading.Lock()
        self._render_lock = threading.Lock()
        # What is loaded stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        self._template = self._tokenizer.chat_template or _processor_template(settings.checkpoint)

    def encode(self, messages: list[dict[str, Any]]) -> list[int]:
        """Render chat messages by the checkpoint's template, up to where the answer begins, as token ids."""
        with self._tokenizer_lock:
            text = self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

    @property
    def refill(self) -> int:
        """The number of rows that are put into the engine at a time."""
        return max(1, self.settings.max_in_flight // 4)

    def preparer(self, image_root: Path, seed: int) -> Preparer:
        """Give what turns records into requests for this checkpoint."""
        vision = self._hf_config.vision_config
        factor = vision.patch_size * vision.spatial_merge_size
        video = getattr(self._hf_config, "video_token_id", None)
        return Preparer(
            encode=self.encode,
            render=self.render,
            image_token_id=self._hf_config.image_token_id,
            forbidden_token_ids=frozenset() if video is None else frozenset([video]),
            max_model_len=self.settings.max_model_len,
            budget=PixelBudget(self.settings.min_pixels, self.settings.max_pixels, factor),
            image_root=image_root,
            seed=seed,
        )

    def render(self, request: Request) -> Any:
        """Give the engine's own input for a request: images cut into patches, their tokens put in.

        May be called from other threads. Raises RowError if the engine does not take the request, EngineError
        if it gave the images another number of tokens than the pixel limits imply.
        """
        try:
            with self._render_lock:
                (rendered,) = self._engine.renderer.render_cmpl([_prompt(request)])
        except (ValueError, TypeError, RuntimeError) as error:
            raise RowError("request_refused", _first_line(error)) from None
        n_image_tokens = self._count_image_tokens(rendered["prompt_token_ids"])
        if n_image_tokens != request.n_image_tokens:
            raise EngineError(
                f"row {request.id}: the engine gave its images {n_image_tokens} tokens, the limits imply "
                f"{request.n_image_tokens}; this checkpoint's image processor does not keep the pixel limits"
            )
        return rendered

    def answers(
        self, prepared: Iterable[Request | Refusal], sampling: Sampling
    ) -> Iterator[Answer | Refusal | None]:
        """Yield every row's outcome as it comes, in any order, and None after a step that finished no row.

        Keeps up to `max_in_flight` rows in the engine and refills it when a quarter of them are done, so that
        images are encoded in groups. Raises EngineError when the engine fails.
        """
        rows = iter(prepared)
        exhausted = False
        low = self.settings.max_in_flight - self.refill
        while True:
            if not exhausted and self._engine.get_num_unfinished_requests() <= low:
                while self._engine.get_num_unfinished_requests() < self.settings.max_in_flight:
                    row = next(rows, None)
                    if row is None:
                        exhausted = True
                        break
                    refusal = row if isinstance(row, Refusal) else self._add(row, sampling)
                    if refusal is not None:
                        yield refusal
            if not self._engine.has_unfinished_requests():
                return
            finished = [output for output in self._step() if output.finished]
            yield from map(self._answer, finished)
            if not finished:
                yield None

    def _add(self, request: Request, sampling: Sampling) -> Refusal | None:
        try:
            self._engine.add_request(request.id, request.rendered, self._params(request, sampling))
        except ValueError as error:
            return Refusal(request.id, "request_refused", _first_line(error))
        except Exception as error:
            raise EngineError(f"the engine failed: {_first_line(error)}") from error
        return None

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> int:
        """Ask for rows by one call of `LLM.generate`, to compare with; gives the number of tokens."""
        outputs = self._llm.generate(
            [_prompt(request) for request in requests],
            [self._params(request, sampling) for request in requests],
            use_tqdm=False,
        )
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    def _params(self, request: Request, sampling: Sampling) -> Any:
        return self._sampling_params(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            n=sampling.n_samples,
            seed=request.seed,
            output_kind=self._final_only,
        )

    def _step(self) -> list[Any]:
        try:
            return self._engine.step()
        except Exception as error:
            raise EngineError(f"the engine failed: {_first_line(error)}") from error

    def _answer(self, output: Any) -> Answer:
        completions = sorted(output.outputs, key=lambda completion: completion.index)
        completion = completions[0]
        return Answer(
            id=output.request_id,
            response=completion.text,
            finish_reason=completion.finish_reason,
            n_image_tokens=self._count_image_tokens(output.prompt_token_ids),
            n_prompt_tokens=len(output.prompt_token_ids),
            n_response_tokens=sum(len(one.token_ids) for one in completions),
            samples=[one.text for one in completions] if len(completions) > 1 else None,
        )

    def _count_image_tokens(self, ids: list[int]) -> int:
        return ids.count(self._hf_config.image_token_id)


def _prompt(request: Request) -> dict[str, Any]:
    return {"prompt_token_ids": request.prompt_token_ids, "multi_modal_data": {"image": request.images}}


def as_output(outcome: Answer | Refusal) -> dict[str, Any]:
    """Give the fields that an outcome adds to its record, the id included."""
    if isinstance(outcome, Refusal):
        return {"id": outcome.id, "error": {"type": outcome.type, "message": outcome.message}}
    return {name: value for name, value in asdict(outcome).items() if value is not None}


def _processor_template(checkpoint: str) -> str:
    from transformers import AutoProcessor

    template = AutoProcessor.from_pretrained(checkpoint).chat_template
    if not template:
        raise EngineError(f"{checkpoint} has no chat template (chat_template.jinja); copy its base model's")
    return str(template)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
