"""Run a checkpoint over a benchmark with vLLM: every row of the data file gets a response or a named error.

Finished rows are on disk as they finish. The same command again continues where it stopped; other arguments
in the same output folder are refused. Writes predictions.jsonl, error.jsonl, merged.jsonl and run.json.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from engine import Engine, EngineError, Sampling, as_output
from engine_settings import EngineSettings, physical_cores, prepare_environment, runs_on_cpu
from plan import Plan, make_plan, parse_arguments
from progress import Progress
from provenance import describe_run
from run_folder import RunFolder
from stopping import Stopper
from workers import Workers, end_with_parent, shares_of_gpus, take_share_of_cores

from emocaliber.records import JsonlAppender, Record, RecordError


def say(message: str) -> None:
    """Print a line about the run's progress."""
    print(message, file=sys.stderr, flush=True)


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


def start_engine(plan: Plan) -> Engine:
    """Set the environment and load the checkpoint. Raises EngineError."""
    if plan.checkpoint.path is not None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    prepare_environment(
        on_cpu=runs_on_cpu(),
        weights_bytes=plan.checkpoint.weights_bytes,
        verbose=plan.arguments.verbose,
    )
    return Engine(engine_settings(plan))


def answer_rows(
    engine: Engine,
    plan: Plan,
    records: Sequence[Record],
    appender: JsonlAppender,
    stopper: Stopper,
    progress: Progress | None,
) -> None:
    """Ask every row and append its outcome as it comes, until all are done or the run is stopped."""
    arguments = plan.arguments
    preparer = engine.preparer(plan.image_root, arguments.seed)
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_new_tokens, arguments.n_samples)
    threads = min(4, physical_cores())
    with closing(preparer.prepare_ahead(records, threads=threads, ahead=engine.refill)) as prepared:
        for outcome in engine.answers(prepared, sampling):
            if outcome is not None:
                appender.write(as_output(outcome))
                if progress is not None:  # a worker's parent counts its rows
                    progress.update(1)
            if stopper.signal is not None:
                return


def work(plan: Plan, folder: RunFolder, stopper: Stopper) -> int:
    """Be one of several workers: answer this worker's share of the rows that are not done."""
    end_with_parent()
    arguments = plan.arguments
    done = folder.read_done()
    pending = [row for row in plan.records[arguments.worker :: arguments.workers] if row["id"] not in done]
    if not pending:
        return 0
    if runs_on_cpu():
        take_share_of_cores(arguments.worker, arguments.workers)
    engine = start_engine(plan)
    stopper.gently = True
    with folder.appender(arguments.worker) as appender:
        answer_rows(engine, plan, pending, appender, stopper, None)
    return 0 if stopper.signal is None else stopper.status


def run_alone(
    plan: Plan, folder: RunFolder, pending: Sequence[Record], stopper: Stopper, progress: Progress
) -> None:
    """Answer the pending rows with one engine in this process."""
    started = time.monotonic()
    engine = start_engine(plan)
    folder.attempt["engine_start_s"] = round(time.monotonic() - started, 2)
    folder.attempt["engine_arguments"] = engine.arguments
    stopper.gently = True
    progress.update(0)
    with folder.appender() as appender:
        answer_rows(engine, plan, pending, appender, stopper, progress)


def run_workers(
    folder: RunFolder,
    environments: Sequence[Mapping[str, str]],
    lock: int,
    argv: Sequence[str],
    stopper: Stopper,
    progress: Progress,
) -> None:
    """Answer the pending rows with several engines. Raises EngineError if one of them failed."""
    stopper.gently = True
    parts = [folder.part(number) for number in range(len(environments))]
    workers = Workers(Path(__file__).resolve(), argv, environments, parts, lock)
    failed = workers.wait(progress.update, lambda: stopper.signal is not None)
    if failed and stopper.signal is None:
        which = ", ".join(f"{number} (exit status {status})" for number, status in sorted(failed.items()))
        raise EngineError(f"of {len(environments)} workers these failed: {which}")


def run(plan: Plan, argv: Sequence[str], stopper: Stopper) -> int:
    """Continue or start the run; gives the exit status. Raises RecordError, EngineError, OSError."""
    arguments = plan.arguments
    folder = RunFolder(arguments.output_dir)
    if arguments.worker is not None:
        return work(plan, folder, stopper)
    folder.check(plan.identity, overwrite=arguments.overwrite)
    environments: list[Mapping[str, str]] = [{} for _ in range(arguments.workers)]
    if not runs_on_cpu():
        shares = shares_of_gpus(arguments.workers, arguments.tensor_parallel_size)
        environments = [{"CUDA_VISIBLE_DEVICES": share} for share in shares]
    for warning in plan.warnings:
        say(f"warning: {warning}")
    lock = folder.open(describe_run(plan), overwrite=arguments.overwrite)
    try:
        done = folder.gather(retry_errors=arguments.retry_errors)
        pending = [record for record in plan.records if record["id"] not in done]
        progress = Progress(len(plan.records), len(done))
        try:
            if pending:
                say(
                    f"{plan.checkpoint.name}: {len(pending)} rows to do, {len(done)} done before; loading ..."
                )
                if arguments.workers > 1:
                    run_workers(folder, environments, lock, argv, stopper, progress)
                else:
                    run_alone(plan, folder, pending, stopper, progress)
        except (KeyboardInterrupt, Exception):
            # A signal also reaches an engine in a process of its own, which then fails.
            if stopper.signal is None:
                folder.close_attempt("failed", progress.close(), done)
                say_what_is_done(plan, folder)
                raise
        status = "finished" if stopper.signal is None else "interrupted"
        folder.close_attempt(status, progress.close(), done)
        if stopper.signal is not None:
            say_what_is_done(plan, folder, "interrupted: ")
            return stopper.status
        return finish(plan, folder)
    finally:
        folder.close()


def say_what_is_done(plan: Plan, folder: RunFolder, why: str = "") -> None:
    """Say how far a run came that ends early."""
    n_done = len(folder.read_done())
    say(f"{why}{n_done} of {len(plan.records)} rows are on disk; the same command continues")


def finish(plan: Plan, folder: RunFolder) -> int:
    """Write the final files and say what came of the run; gives the exit status."""
    attempt = folder.attempt
    n_responses, errors = folder.finish(plan.records)
    folder.run["result"] = {"rows": len(plan.records), "responses": n_responses, "errors": dict(errors)}
    folder.write_run()
    named = ", ".join(f"{count} {name}" for name, count in sorted(errors.items()))
    say(
        f"{len(plan.records)} rows: {n_responses} with a response, {sum(errors.values())} with an error"
        + (f" ({named}; see error.jsonl)" if named else "")
        + f"; {attempt['rows_done']} done now"
        + (f" at {attempt['rows_per_s']} rows/s" if "rows_per_s" in attempt else "")
    )
    say(f"wrote {folder.path / 'predictions.jsonl'}")
    if n_responses == 0:
        say("error: no row has a response; mend what error.jsonl names, then add --retry-errors")
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    stopper = Stopper()
    try:
        return run(make_plan(parse_arguments(argv, description=__doc__)), argv, stopper)
    except RecordError as error:
        say(f"error: {error}")
        return 2
    except (EngineError, OSError) as error:
        if stopper.signal is not None:
            return stopper.status
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        if "--worker" not in argv:  # a worker's parent says it
            say("interrupted; the same command continues")
        return stopper.status


if __name__ == "__main__":
    sys.exit(main())
