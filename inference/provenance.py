"""Where a run comes from, for run.json. Nothing of the environment's variables, so no secrets."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from engine_settings import runs_on_cpu
from plan import Plan
from run_folder import utc_now

PACKAGES = ("vllm", "torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow")


def installed_versions() -> dict[str, str | None]:
    """Give the versions of Python and of the packages that decide a response."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def commit() -> str | None:
    """Give the commit of this repository, with `+` if files differ from it; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def describe_run(plan: Plan) -> dict[str, Any]:
    """Give run.json as it is when the run starts."""
    arguments, checkpoint = plan.arguments, plan.checkpoint
    shown = {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()
    }
    shown.pop("worker")
    path = checkpoint.path.resolve() if checkpoint.path else None
    attempt = {
        "status": "running",
        "started_at": utc_now(),
        "commit": commit(),
        "versions": installed_versions(),
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
            "path": str(arguments.data.resolve()),
            "sha256": plan.identity["data"],
            "rows": len(plan.records),
        },
        "attempts": [attempt],
    }
