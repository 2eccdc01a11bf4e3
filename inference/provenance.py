"""Where a run comes from, for run.json. Nothing of the environment's variables, so no secrets."""

from pathlib import Path
from typing import Any

from engine_settings import runs_on_cpu
from plan import Plan
from run_folder import utc_now

from emocaliber.prompts import PROMPTS, SYSTEM_PROMPT
from emocaliber.provenance import commit, installed_versions

PACKAGES = ("vllm", "torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow")


def prompt_description(name: str | None) -> dict[str, Any]:
    """Give what, with the record and the checkpoint's chat template, decides the prompt of a row."""
    if name is None:
        return {"name": None, "question": "the messages of each record", "system": SYSTEM_PROMPT}
    return {"name": name, "question": PROMPTS[name].question, "system": SYSTEM_PROMPT}


def describe_run(plan: Plan) -> dict[str, Any]:
    """Give run.json as it is when the run starts."""
    arguments, checkpoint = plan.arguments, plan.checkpoint
    shown = {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()
    }
    for internal in ("worker", "handout"):
        shown.pop(internal)
    path = checkpoint.path.resolve() if checkpoint.path else None
    attempt = {
        "status": "running",
        "started_at": utc_now(),
        "commit": commit(),
        "versions": installed_versions(PACKAGES),
    }
    attempt |= {"device": "cpu" if runs_on_cpu() else "cuda", "arguments": shown}
    return {
        "identity": plan.identity,
        "model": {
            "name": checkpoint.name,
            "path": path and str(path),
            "type": checkpoint.model_type,
            "sha256": checkpoint.sha256,
            "files_bytes": checkpoint.files,
        },
        "data": {
            "path": plan.names["data"],
            "sha256": plan.identity["data"],
            "rows": len(plan.records),
        },
        "pixels": {"min": arguments.min_pixels, "max": arguments.max_pixels},
        "prompt": prompt_description(arguments.prompt),
        "attempts": [attempt],
    }
