"""Run a model over a benchmark, or over images of your own: every row gets a response or a named error.

Finished rows are on disk as they finish. The same command again continues where it stopped; other arguments
in the same output folder are refused. Writes predictions.jsonl, error.jsonl, merged.jsonl and run.json.
"""

import sys
from collections.abc import Mapping, Sequence

from emocaliber.records import RecordError
from inference.backends.backend import EngineError
from inference.backends.vllm_engine import runs_on_cpu
from inference.prediction_page import write_page_of
from inference.runs.answering import (
    GpuWatch,
    Progress,
    Stopper,
    check_images,
    closing_lines,
    run_alone,
    say,
)
from inference.runs.arguments import parse_arguments
from inference.runs.plan import Plan, describe_run, is_invalid, make_plan
from inference.runs.run_folder import RunFolder
from inference.runs.workers import (
    run_workers,
    shares_of_gpus,
    work,
)

# Errors that only other data mend, which make another run.
IN_THE_DATA = {"prompt_invalid", "record_invalid"}


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
        from inference.runs.ray_workers import reach

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
                    from inference.runs.ray_workers import run_on_ray

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
