"""Run a model over a benchmark, or over images of your own: every row gets a response or a named error.

Finished rows are on disk as they finish. The same command again continues where it stopped; other arguments
in the same output folder are refused. Writes predictions.jsonl, error.jsonl, merged.jsonl and run.json.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from answer_rows import answer_rows, check_failures
from arguments import parse_arguments
from backend import EngineError
from closing_lines import closing_lines
from engine_settings import runs_on_cpu
from gpu_watch import GpuWatch
from handout import Handout
from plan import Plan, is_invalid, make_plan
from progress import Progress
from provenance import describe_run
from run_folder import RunFolder
from seen_images import check_images
from start_backend import start_backend
from stopping import Stopper
from workers import Workers, end_with_parent, shares_of_gpus, take_share_of_cores

from emocaliber.records import Record, RecordError

# Errors that only other data mend, which make another run.
IN_THE_DATA = {"prompt_invalid", "record_invalid"}


def say(message: str) -> None:
    """Print a line about the run's progress."""
    print(message, file=sys.stderr, flush=True)


def work(plan: Plan, folder: RunFolder, stopper: Stopper) -> int:
    """Be one of several workers: take row after row of those that are not done."""
    end_with_parent()
    arguments = plan.arguments
    done = folder.read_gathered()
    pending = [row for row in plan.records if row["id"] not in done]
    handout = Handout(arguments.handout)
    if runs_on_cpu():
        take_share_of_cores(arguments.worker, arguments.workers)
    # In its hands at the start no worker has more than its share, so that none idles at the end.
    share = max(1, len(pending) // arguments.workers)
    arguments.batch_size = max(1, min(arguments.batch_size, share * 4 // 5))
    backend = start_backend(plan)
    stopper.gently = True
    rows = (pending[number] for number in handout.rows_for(arguments.worker))
    with folder.appender(arguments.worker) as appender:
        answer_rows(backend, rows, plan.image_root, appender.write, stopper)
    return 0 if stopper.signal is None else stopper.status


def run_alone(
    plan: Plan, folder: RunFolder, pending: Sequence[Record], stopper: Stopper, progress: Progress
) -> None:
    """Answer the pending rows with one backend in this process."""
    started = time.monotonic()
    backend = start_backend(plan)
    folder.attempt["engine_start_s"] = round(time.monotonic() - started, 2)
    folder.attempt["engine_arguments"] = dict(backend.arguments)
    if plan.arguments.backend == "server":
        folder.check_model()
    stopper.gently = True
    progress.update(0)
    with folder.appender() as appender:

        def write(row: dict[str, Any]) -> None:
            appender.write(row)
            progress.update(1, "error" in row)
            check_failures(progress, plan.arguments.max_failures)

        try:
            answer_rows(backend, pending, plan.image_root, write, stopper)
        finally:
            counts = getattr(backend, "counts", None)
            if counts is not None:
                folder.attempt["requests"] = counts


def run_workers(
    plan: Plan,
    folder: RunFolder,
    pending: Sequence[Record],
    environments: Sequence[Mapping[str, str]],
    lock: int,
    argv: Sequence[str],
    stopper: Stopper,
    progress: Progress,
) -> None:
    """Answer the pending rows with several engines. Raises EngineError if they cannot go on."""
    stopper.gently = True
    most = plan.arguments.max_failures
    workers = Workers(
        Path(sys.argv[0]).resolve(),
        argv,
        environments,
        [folder.part(number) for number in range(len(environments))],
        [row["id"] for row in pending],
        lock,
    )
    failed = workers.wait(
        progress.update,
        lambda: stopper.signal is not None or (most is not None and progress.n_failed > most),
        say,
    )
    if stopper.signal is None:
        check_failures(progress, most)
        if failed:
            raise EngineError(
                f"{len(failed)} workers have died, the last with {failed[-1]}; no more are started"
            )


def run(plan: Plan, argv: Sequence[str], stopper: Stopper) -> int:
    """Continue or start the run; gives the exit status. Raises RecordError, EngineError, OSError."""
    arguments = plan.arguments
    folder = RunFolder(arguments.output_dir)
    if arguments.worker is not None:
        return work(plan, folder, stopper)
    folder.check(plan.identity, overwrite=arguments.overwrite, names=plan.names)
    if not arguments.overwrite:
        check_images(plan.records, folder.answered(), plan.image_root)
    environments: list[Mapping[str, str]] = [{} for _ in range(arguments.workers)]
    if not (runs_on_cpu() or arguments.ray or arguments.backend == "server"):
        shares = shares_of_gpus(arguments.workers, arguments.tensor_parallel_size)
        environments = [{"CUDA_VISIBLE_DEVICES": share} for share in shares]
    if arguments.ray:
        from ray_workers import reach

        reach(arguments.ray)
    for warning in plan.warnings:
        say(f"warning: {warning}")
    lock = folder.open(describe_run(plan), overwrite=arguments.overwrite)
    try:
        invalid = [record for record in plan.records if is_invalid(record)]
        done = folder.gather(retry_errors=arguments.retry_errors, invalid=invalid)
        pending = [record for record in plan.records if record["id"] not in done]
        progress = Progress(len(plan.records), len(done))
        watch = GpuWatch()
        try:
            if pending:
                n_before = len(done) - len(invalid)
                say(f"{plan.model_name}: {len(pending)} rows to do, {n_before} done before; loading ...")
                if arguments.ray:
                    from ray_workers import run_on_ray

                    run_on_ray(plan, folder, pending, stopper, progress)
                elif arguments.workers > 1 and len(pending) > 1:
                    environments = environments[: len(pending)]
                    run_workers(plan, folder, pending, environments, lock, argv, stopper, progress)
                else:
                    run_alone(plan, folder, pending, stopper, progress)
        except (KeyboardInterrupt, Exception):
            # A signal also reaches an engine in a process of its own, which then fails.
            if stopper.signal is None:
                folder.close_attempt("failed", progress, watch.close(), done)
                say_what_is_done(plan, folder)
                raise
        status = "finished" if stopper.signal is None else "interrupted"
        folder.close_attempt(status, progress, watch.close(), done)
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
    n_responses, errors = folder.finish(plan.records)
    folder.run["result"] = {"rows": len(plan.records), "responses": n_responses, "errors": dict(errors)}
    folder.write_run()
    for line in closing_lines(folder.attempt, len(plan.records), n_responses, errors):
        say(line)
    if plan.arguments.images is not None:
        from prediction_page import write_page_of

        say(f"wrote {write_page_of(folder.path, plan.image_root)}")
    say(f"wrote {folder.path / 'predictions.jsonl'}")
    if n_responses == 0:
        remedy = "mend what error.jsonl names, then add --retry-errors"
        if set(errors) <= IN_THE_DATA:
            remedy = "mend the data as error.jsonl says, then add --overwrite"
        say(f"error: no row has a response; {remedy}")
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
