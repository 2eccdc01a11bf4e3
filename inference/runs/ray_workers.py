"""Several engines on a Ray cluster, of one machine or of many: Ray Data hands them blocks of rows.

Every node needs the checkpoint, the images and this repository at the same paths, on a shared file system,
and the same environment. Code is therefore not packed for the cluster: Ray gives its workers the driver's
`sys.path`, this folder included. Rows are written by the driver alone, as their blocks finish.
"""

import json
import logging
import os
import queue
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from emocaliber.records import Record, RecordError
from inference.backends.backend import EngineError
from inference.backends.vllm_engine import engine_arguments, runs_on_cpu
from inference.runs.answering import Run, answer_rows
from inference.runs.plan import Plan
from inference.runs.workers import MOST_REPLACED

LOCAL = "local"

# A block drains the engine at its end, so it holds several fillings of it; and what is lost when a run is
# stopped is the blocks under way, so it is no more than a part of a worker's share.
FILLINGS_A_BLOCK = 4
BLOCKS_A_WORKER = 8
LOOK_S = 0.2


class EngineActor:
    """The engine on a node, loaded once; Ray Data calls it with one block after another."""

    def __init__(self, plan: Plan) -> None:
        """Load the checkpoint. What stops that is raised by the first block: Ray would start this again."""
        self._failure: Exception | None = None
        try:
            self._backend = plan.start_backend()
        except (EngineError, RecordError) as error:
            self._failure = error

    def __call__(self, block: Any) -> Any:
        """Answer a block; tables in and out have one column, `row`, of JSON objects. Raises EngineError."""
        import pyarrow

        if self._failure is not None:
            raise self._failure
        rows = [json.loads(row) for row in block["row"].to_pylist()]
        outputs: list[str] = []
        answer_rows(self._backend, rows, lambda row: outputs.append(json.dumps(row)))
        return pyarrow.table({"row": outputs})


def answer_on_ray(run: Run, pending: Sequence[Record]) -> None:
    """Answer the pending rows with `--workers` engines on a cluster.

    Raises RecordError too if there is no such cluster or it is too small.
    """
    run.stopper.gently = True
    plan, attempt = run.plan, run.folder.attempt
    with _cluster(plan) as ray:
        attempt["ray_nodes"] = sum(node["Alive"] for node in ray.nodes())
        attempt["engine_arguments"] = engine_arguments(plan.settings, plan.asking, on_cpu=runs_on_cpu())
        run.progress.update(0)
        unanswered = {row["id"] for row in pending}
        with run.folder.appender() as appender:
            for rows in _finished_blocks(_answered(plan, pending), run):
                # A block that was asked again may come a second time.
                rows = [row for row in rows if row["id"] in unanswered]
                for row in rows:
                    appender.write(row)
                unanswered.difference_update(row["id"] for row in rows)
                run.count(len(rows), sum("error" in row for row in rows))
    if unanswered and not run.is_stopped:
        raise EngineError(f"Ray ended without {len(unanswered)} of the rows")


@contextmanager
def _cluster(plan: Plan) -> Iterator[Any]:
    """Be connected to the cluster and leave it; one of this machine then ends. Gives the module of Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    arguments = plan.arguments
    if not arguments.verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray as imported

    ray: Any = imported  # its functions have no types
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A path of its own and a short one: those of Ray's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        own: dict[str, Any] = {}
        if arguments.ray == LOCAL:
            own = {"include_dashboard": False, "_temp_dir": temporary}
            if runs_on_cpu():
                own["num_cpus"] = max(arguments.workers, os.cpu_count() or 1)
        try:
            try:
                ray.init(
                    address=arguments.ray,
                    log_to_driver=arguments.verbose,
                    logging_level=logging.INFO if arguments.verbose else logging.ERROR,
                    **own,
                )
            except (ConnectionError, ValueError) as error:
                reason = str(error).strip().split("\n")[0]
                raise RecordError(f"--ray {arguments.ray}: no such cluster ({reason})") from None
            # Ray puts its own in their place.
            for number, handler in handlers.items():
                signal.signal(number, handler)
            _check_size(ray, plan)
            yield ray
        finally:
            ray.shutdown()


def reach(address: str) -> None:
    """Look whether anything listens there: Ray itself ends the process, after a minute, without a word.

    Raises RecordError.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise RecordError(f"--ray {address}: no such cluster ({error})") from None


def _check_size(ray: Any, plan: Plan) -> None:
    """Refuse a cluster where a worker would wait for ever."""
    arguments = plan.arguments
    name, each = ("CPU", 1) if runs_on_cpu() else ("GPU", arguments.tensor_parallel_size)
    has = int(ray.cluster_resources().get(name, 0))
    if has < arguments.workers * each:
        raise RecordError(
            f"--ray {arguments.ray}: {arguments.workers} workers with {each} {name} each need "
            f"{arguments.workers * each}, the cluster has {has}; lower --workers or --tensor-parallel-size"
        )


def _answered(plan: Plan, pending: Sequence[Record]) -> Any:
    """Give the `ray.data.Dataset` of the outcomes; nothing runs before it is read."""
    import pyarrow
    import ray.data

    arguments = plan.arguments
    context = ray.data.DataContext.get_current()
    if not arguments.verbose:
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # An engine may die while it loads, of another process's memory, say; one that cannot load would for ever.
    context.max_consecutive_actor_init_deaths = MOST_REPLACED
    share = len(pending) // (arguments.workers * BLOCKS_A_WORKER)
    size = max(1, min(FILLINGS_A_BLOCK * arguments.batch_size, share))
    lines = [json.dumps(row) for row in pending]  # fields differ from row to row, a table's columns may not
    blocks = [pyarrow.table({"row": lines[i : i + size]}) for i in range(0, len(lines), size)]
    checkpoint = plan.checkpoint
    if checkpoint.path is not None:
        checkpoint = replace(checkpoint, path=checkpoint.path.absolute())
    there = replace(plan, records=[], image_root=plan.image_root.absolute(), checkpoint=checkpoint)
    device = {"num_cpus": 1} if runs_on_cpu() else {"num_gpus": arguments.tensor_parallel_size}
    # Ray 2.60 has no other way to say how often an engine is started again than one it is about to drop.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    return ray.data.from_arrow(blocks).map_batches(
        EngineActor,
        fn_constructor_args=(there,),
        batch_size=size,
        batch_format="pyarrow",
        # Who is free takes the next block, none waits in the hands of another.
        compute=ray.data.ActorPoolStrategy(size=arguments.workers, max_tasks_in_flight_per_actor=1),
        # The block of an engine that dies is asked again.
        max_restarts=MOST_REPLACED,
        max_task_retries=MOST_REPLACED,
        **device,
    )


def _finished_blocks(dataset: Any, run: Run) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of every block as it finishes, until all are done or the run is stopped.

    Ray waits in a thread of its own, so that a signal is noticed at once. Raises EngineError.
    """
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def wait() -> None:
        try:
            for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                came.put([json.loads(row) for row in block["row"].to_pylist()])
            came.put(None)
        except BaseException as error:
            came.put(error)

    threading.Thread(target=wait, daemon=True).start()
    while not run.is_stopped:
        try:
            block = came.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        if block is None:
            return
        if isinstance(block, BaseException):
            raise EngineError(_one_line(block)) from None
        yield block


def _one_line(error: BaseException) -> str:
    """Give the cause of what Ray raised: its message holds the stack of the node."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, (EngineError, RecordError)):
        return str(cause)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"an engine on Ray is lost: {type(cause).__name__}: {lines[0][:300] if lines else ''}"
