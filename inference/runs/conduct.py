"""A run from its start, or from where it stopped, to its final files."""

import argparse
from collections.abc import Callable
from pathlib import Path

from emocaliber.records import is_invalid_record
from inference.backends.vllm_engine import runs_on_cpu
from inference.runs.answering import (
    GpuWatch,
    Progress,
    Run,
    Stopper,
    answer_alone,
    check_images,
    closing_lines,
    say,
)
from inference.runs.plan import Plan, describe_run, make_plan
from inference.runs.ray_workers import answer_on_ray, reach
from inference.runs.run_folder import RunFolder
from inference.runs.workers import answer_by_workers, number_of_workers, shares_of_gpus, work

# Errors that only other data mend, which make another run.
IN_THE_DATA = {"prompt_invalid", "record_invalid"}
WritePage = Callable[[Path, Path], Path]


def conduct(arguments: argparse.Namespace, write_page_of: WritePage) -> int:
    """Continue or start a run; gives the exit status. Raises RecordError, EngineError, OSError.

    `write_page_of`: writes the page of a run over images of one's own, of its folder and its image root.
    """
    plan = make_plan(arguments)
    folder = RunFolder(arguments.output_dir)
    stopper = Stopper()
    if arguments.worker is not None:
        return work(plan, folder, stopper)
    folder.check(plan.identity, overwrite=arguments.overwrite, names=plan.names)
    if not arguments.overwrite:
        check_images(plan.records, folder.answered(), plan.image_root)
    if arguments.ray:
        reach(arguments.ray)
    elif plan.takes.workers and not runs_on_cpu():
        shares_of_gpus(arguments.workers or 1, arguments.tensor_parallel_size)
    for warning in plan.warnings:
        say(f"warning: {warning}")
    folder.open(describe_run(plan), overwrite=arguments.overwrite)
    try:
        status = answer(plan, folder, stopper)
        return finish(plan, folder, write_page_of) if status is None else status
    finally:
        folder.close()


def answer(plan: Plan, folder: RunFolder, stopper: Stopper) -> int | None:
    """Answer the rows that are not done; gives the exit status of a run that was stopped, else None."""
    arguments = plan.arguments
    invalid = [record for record in plan.records if is_invalid_record(record)]
    done = folder.gather(retry_errors=arguments.retry_errors, invalid=invalid)
    pending = [record for record in plan.records if record["id"] not in done]
    run = Run(plan, folder, stopper, Progress(len(plan.records), len(done)))
    watch = GpuWatch()
    status = "failed"
    try:
        if pending:
            n_before = len(done) - len(invalid)
            say(f"{plan.model_name}: {len(pending)} rows to do, {n_before} done before; loading ...")
            arguments.workers = folder.attempt["workers"] = number_of_workers(plan, len(pending))
            way = answer_by_workers if arguments.workers > 1 else answer_alone
            if arguments.ray:
                way = answer_on_ray
            way(run, pending)
        status = "finished"
    except BaseException:
        # A signal also reaches an engine in a process of its own, which then fails.
        if not run.is_stopped:
            raise
    finally:
        status = "interrupted" if run.is_stopped else status
        seconds, first_row_s = run.progress.close(), run.progress.first_row_s
        folder.close_attempt(status, done, generate_s=seconds, first_row_s=first_row_s, gpus=watch.close())
        if status != "finished":
            why = "interrupted: " if run.is_stopped else ""
            n_done = len(folder.read_done())
            say(f"{why}{n_done} of {len(plan.records)} rows are on disk; the same command continues")
    return stopper.status if run.is_stopped else None


def finish(plan: Plan, folder: RunFolder, write_page_of: WritePage) -> int:
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
