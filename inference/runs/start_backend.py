"""Starts what answers the rows of a plan."""

import os
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from inference.backends.backend import Backend
from inference.backends.prepare import ChatTokenizer, PixelBudget, chat_messages, count_prompt_tokens
from inference.backends.server import ServerBackend, ServerSettings
from inference.backends.transformers_backend import TransformersBackend
from inference.backends.vllm_engine import Engine, EngineSettings, prepare_environment, runs_on_cpu
from inference.runs.plan import Plan, make_asking


def engine_settings(plan: Plan) -> EngineSettings:
    """Give what the engine is built from."""
    arguments = plan.arguments
    return EngineSettings(
        checkpoint=str(plan.checkpoint.path or plan.checkpoint.name),
        dtype=arguments.dtype,
        max_model_len=plan.max_model_len,
        min_pixels=arguments.min_pixels,
        max_pixels=arguments.max_pixels,
        images_per_row=plan.images_per_row,
        max_in_flight=arguments.batch_size,
        tensor_parallel_size=arguments.tensor_parallel_size,
        gpu_memory_utilization=arguments.gpu_memory_utilization,
        seed=arguments.seed,
    )


def start_backend(plan: Plan) -> Backend:
    """Load the checkpoint, or find the server. Raises EngineError, and RecordError for what it cannot do."""
    arguments = plan.arguments
    if plan.checkpoint.path is not None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    prepare_environment(
        on_cpu=runs_on_cpu(), weights_bytes=plan.checkpoint.weights_bytes, verbose=arguments.verbose
    )
    if arguments.backend == "server":
        return _server(plan)
    if arguments.backend == "transformers":
        return TransformersBackend(engine_settings(plan), make_asking(plan))

    return Engine(engine_settings(plan), make_asking(plan))


def _server(plan: Plan) -> Backend:

    arguments = plan.arguments
    settings = ServerSettings(
        url=arguments.server_url,
        model=arguments.server_model,
        key_variable=arguments.api_key_variable,
        concurrency=arguments.batch_size,
        timeout_s=arguments.timeout_s,
        factor=plan.checkpoint.image_factor,
    )
    counter = None
    if plan.checkpoint.path is not None:
        counter = _prompt_counter(plan)
    return ServerBackend(settings, make_asking(plan), expected_prompt_tokens=counter)


def _prompt_counter(plan: Plan) -> Any:
    """Give what counts the tokens of a row's prompt and of its images, as the server has to.

    The tokenizer takes seconds to load: it is when the first row is counted, and the server has been found.
    """

    arguments = plan.arguments
    budget = PixelBudget(arguments.min_pixels, arguments.max_pixels, plan.checkpoint.image_factor)

    @cache
    def tokenizer() -> Any:

        return ChatTokenizer(str(plan.checkpoint.path))

    loading = threading.Lock()

    def count(record: Mapping[str, Any], sizes: list[tuple[int, int]]) -> tuple[int, int]:
        with loading:  # of several threads one loads it
            own = tokenizer()
        ids = own.encode(chat_messages(record, arguments.prompt))
        return count_prompt_tokens(ids, sizes, budget, own.image_token_id)

    return count
