"""What made a result: this repository's commit, the versions of packages, the sums of files. No secrets."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO


def installed_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Give the versions of Python (`python`) and of the packages, None for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
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


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Give the SHA-256 sum of a file in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """Give the SHA-256 sum of what is left to read of an open file, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
