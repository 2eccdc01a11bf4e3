"""What made a result: versions, the commit with its mark for changes, the sums of files."""

import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emocaliber import provenance
from emocaliber.provenance import file_sha256, installed_versions


def test_versions_of_python_and_of_packages_that_may_not_be_there() -> None:
    assert installed_versions(["numpy", "no-such-package"]) == {
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "no-such-package": None,
    }


def test_the_commit_of_the_repository_that_the_module_lies_in(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit() -> str:
        code = "import provenance; print(provenance.commit())"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        return done.stdout.strip()

    shutil.copy(provenance.__file__, tmp_path)
    assert commit() == "None"
    git("init", "-q")
    git("add", "provenance.py")
    git("commit", "-qm", "first")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "not_tracked").touch()
    assert commit() == git("rev-parse", "HEAD")
    with (tmp_path / "provenance.py").open("a") as file:
        file.write("# changed\n")
    assert commit() == git("rev-parse", "HEAD") + "+"


@pytest.mark.parametrize("size", [0, 5, 2**20, 2**21 + 1])
def test_the_sum_of_a_file_of_any_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"a" * size)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"a" * size).hexdigest()
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "none")
