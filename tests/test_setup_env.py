"""setup_env.sh in a small tree of its own: one package to install, from a folder of wheels, no network."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAMP, UNFINISHED = ".emocaliber-finished", ".emocaliber-unfinished"
Run = subprocess.CompletedProcess[str]


def write_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel of one module that holds its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)


def require(tree: Path, version: str) -> None:
    """Have the tree's CPU set be `tinydep` of this version."""
    (tree / "requirement-cpu.txt").write_text(f"tinydep=={version}\n", encoding="utf-8")
    (tree / "requirement-cpu.lock").write_text(f"tinydep=={version}\n", encoding="utf-8")


def make_tree(tree: Path) -> Path:
    """A repository of setup_env.sh and what it reads."""
    (tree / "emocaliber").mkdir(parents=True)
    (tree / "wheels").mkdir()
    shutil.copy(ROOT / "setup_env.sh", tree)
    shutil.copy(ROOT / "emocaliber" / "environment.py", tree / "emocaliber")
    (tree / "emocaliber" / "__init__.py").write_text("", encoding="utf-8")
    write_wheel(tree / "wheels", "tinydep", "1.0")
    write_wheel(tree / "wheels", "tinydep", "1.1")
    require(tree, "1.0")
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository without an environment, in a folder with a space in its name."""
    return make_tree(tmp_path / "a tree")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A repository whose environment setup_env.sh has made, and that start."""
    tree = make_tree(tmp_path_factory.mktemp("made") / "a tree")
    return tree, setup(tree)


@pytest.fixture
def made_tree(made: tuple[Path, Run], tmp_path: Path) -> Path:
    """A copy of that repository and its environment, as if it had been made in this place."""
    tree = tmp_path / "a tree"
    shutil.copytree(made[0], tree, symlinks=True)
    for file in (
        tree / ".venv" / STAMP,
        next((tree / ".venv/lib").glob("python*/site-packages/emocaliber.pth")),
    ):
        file.write_text(file.read_text().replace(str(made[0]), str(tree)), encoding="utf-8")
    return tree


def variables(tree: Path, **more: str) -> dict[str, str]:
    """The caller's variables, without an active environment, for the CPU set and the tree's wheels."""
    ours = {"EMOCALIBER_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    settings = {
        "EMOCALIBER_DEVICE": "cpu",
        "EMOCALIBER_WHEELS": str(tree / "wheels"),
        "EMOCALIBER_DISK_GB": "0",
    }
    return {**kept, **settings, **more}


def setup(tree: Path, **more: str) -> Run:
    """`bash setup_env.sh`."""
    return bash(tree, f"bash '{tree}/setup_env.sh'", **more)


def begin_to_make(tree: Path, **more: str) -> str:
    """What setup_env.sh says when it is about to make an environment and then finds the disk too full."""
    run = setup(tree, EMOCALIBER_DISK_GB="999999999", **more)
    assert "GB needed to install" in one_error(run, 1)
    return run.stderr


def bash(tree: Path, script: str, **more: str) -> Run:
    arguments = ["bash", "-c", script]
    return subprocess.run(
        arguments, env=variables(tree, **more), cwd=tree.parent, capture_output=True, text=True, timeout=300
    )


def ready_environment(folder: Path, tree: Path, version: str = "1.0") -> Path:
    """A virtual environment that somebody made and put tinydep into."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site_packages = next((folder / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(tree / "wheels" / f"tinydep-{version}-py3-none-any.whl") as wheel:
        wheel.extractall(site_packages)
    return folder


def one_error(run: Run, status: int) -> str:
    """The run's one error line, having ended with this status."""
    assert run.returncode == status, run.stderr
    assert run.stdout == ""
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, run.stderr
    return errors[0]


def test_an_environment_is_made(made: tuple[Path, Run]) -> None:
    tree, start = made
    python = tree / ".venv/bin/python"
    assert (start.returncode, start.stdout) == (0, f"{python}\n"), start.stderr
    assert "[setup_env] the packages of requirement-cpu.lock (minutes)" in start.stderr
    assert start.stderr.count("  done in ") >= 4
    assert f"output goes to {tree}/.venv.log" in start.stderr
    code = "import tinydep, emocaliber; print(tinydep.version, emocaliber.__file__)"
    run = subprocess.run([python, "-c", code], env=variables(tree), cwd="/", capture_output=True, text=True)
    assert run.stdout == f"1.0 {tree}/emocaliber/__init__.py\n"
    assert {path.name for path in (tree / ".venv").glob("*emocaliber*")} == {STAMP}
    assert not (tree / ".venv/tmp").exists()


def test_an_environment_that_is_there_is_found_again(made_tree: Path) -> None:
    # Nothing to install from any more: what is found is not made again.
    shutil.rmtree(made_tree / "wheels")
    python = made_tree / ".venv/bin/python"
    found = setup(made_tree, EMOCALIBER_WHEELS="", PIP_NO_INDEX="1")
    assert (found.returncode, found.stdout) == (0, f"{python}\n")
    assert found.stderr == f"[setup_env] using {made_tree}/.venv (cpu set)\n"

    again = setup(made_tree, EMOCALIBER_WHEELS="", EMOCALIBER_PYTHON=str(python))
    assert (again.returncode, again.stdout) == (0, f"{python}\n")


def test_an_environment_that_lost_a_package_is_made_anew(made_tree: Path) -> None:
    shutil.rmtree(next((made_tree / ".venv/lib").glob("python*/site-packages/tinydep-1.0.dist-info")))
    assert "anew (it lacks tinydep==1.0)" in begin_to_make(made_tree)


def test_sourcing_exports_the_interpreter_and_leaks_nothing(tree: Path) -> None:
    environment = ready_environment(tree.parent / "active", tree)
    script = f"""
        set -euo pipefail
        before="$(set +o; declare -F; compgen -v)"
        source "{tree}/setup_env.sh"
        after="$(set +o; declare -F; compgen -v)"
        diff <(echo "$before") <(echo "$after") || true
        python -c 'import sys, tinydep, emocaliber; print(sys.executable)'
        python -c 'import os; print(os.environ["EMOCALIBER_PYTHON"])'
    """
    run = bash(tree, script, VIRTUAL_ENV=str(environment))
    assert run.returncode == 0, run.stderr
    changed = {line[2:] for line in run.stdout.splitlines() if line[:2] in ("> ", "< ")}
    assert changed <= {"EMOCALIBER_PYTHON", "PYTHONPATH", "before", "BASH_REMATCH", "PIPESTATUS"}
    assert "EMOCALIBER_PYTHON" in changed
    assert run.stdout.splitlines()[-2:] == [f"{environment}/bin/python"] * 2


def test_sourcing_twice_is_sourcing_once(tree: Path) -> None:
    environment = ready_environment(tree.parent / "active", tree)
    once = f'source "{tree}/setup_env.sh"; echo "$PATH $PYTHONPATH $EMOCALIBER_PYTHON"; '
    run = bash(tree, once * 2, VIRTUAL_ENV=str(environment))
    first, second = run.stdout.splitlines()
    assert first == second


def test_a_failure_ends_a_strict_caller(tree: Path) -> None:
    run = bash(
        tree, f'set -euo pipefail; source "{tree}/setup_env.sh"; echo reached', EMOCALIBER_DEVICE="tpu"
    )
    assert "give cpu or cuda" in one_error(run, 2)


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX", "EMOCALIBER_PYTHON"])
def test_a_ready_environment_is_used_as_it_is(tree: Path, variable: str) -> None:
    environment = ready_environment(tree.parent / "mine", tree)
    before = sorted(environment.rglob("*"))
    python = environment / "bin/python"
    run = setup(tree, **{variable: str(python if variable == "EMOCALIBER_PYTHON" else environment)})
    assert (run.returncode, run.stdout) == (0, f"{python}\n"), run.stderr
    assert not (tree / ".venv").exists()
    assert sorted(environment.rglob("*")) == before


def test_an_active_environment_that_lacks_something_is_left_alone(tree: Path) -> None:
    environment = ready_environment(tree.parent / "mine", tree)
    require(tree, "1.1")
    (tree / "requirement-cpu.txt").write_text("tinydep==1.1\nabsent-package==3\n", encoding="utf-8")
    said = begin_to_make(tree, VIRTUAL_ENV=str(environment))
    assert f"the active environment {environment} is not used: it lacks absent-package==3" in said
    assert not (tree / ".venv").exists()


def test_a_given_environment_that_lacks_something_is_an_error(tree: Path) -> None:
    environment = ready_environment(tree.parent / "mine", tree)
    (tree / "requirement-cpu.txt").write_text("tinydep==1.0\nabsent-package==3\n", encoding="utf-8")
    error = one_error(setup(tree, EMOCALIBER_PYTHON=str(environment / "bin/python")), 2)
    assert "it lacks absent-package==3" in error
    assert "does not run" in one_error(setup(tree, EMOCALIBER_PYTHON="/no/such/python"), 2)
    assert not (tree / ".venv").exists()


def killed_when(tree: Path, moment: Callable[[], bool]) -> None:
    """Start setup_env.sh and kill all of its processes, without warning, at the moment."""
    process = subprocess.Popen(
        ["bash", str(tree / "setup_env.sh")],
        env=variables(tree),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not moment():
        assert process.poll() is None, "it ended before the moment to kill it"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["bin/python", "lib/python*/site-packages/tinydep.py"])
def test_kill_9_leaves_nothing_that_looks_finished(tree: Path, file: str) -> None:
    killed_when(tree, lambda: any((tree / ".venv").glob(file)))
    assert not (tree / ".venv" / STAMP).exists()
    run = setup(tree)
    assert (run.returncode, run.stdout) == (0, f"{tree}/.venv/bin/python\n"), run.stderr
    assert "anew (it was left unfinished)" in run.stderr
    assert not (tree / ".venv.old").exists()


@pytest.mark.slow
def test_two_starts_with_a_plain_python_make_one_environment(tree: Path) -> None:
    command = ["bash", str(tree / "setup_env.sh")]
    plain = variables(tree, EMOCALIBER_PYTHON=getattr(sys, "_base_executable", sys.executable))
    starts = [
        subprocess.Popen(command, env=plain, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [start.communicate(timeout=300) for start in starts]
    assert [start.returncode for start in starts] == [0, 0], results
    assert {out for out, _ in results} == {f"{tree}/.venv/bin/python\n"}
    assert sum("made in" in err for _, err in results) == 1
    assert sum("waiting for it" in err for _, err in results) == 1


def test_with_another_lock_it_is_made_anew(made_tree: Path) -> None:
    require(made_tree, "1.1")
    assert "anew (it is for another lock or another place)" in begin_to_make(made_tree)
    assert not (made_tree / ".venv").exists()


def test_in_another_place_it_is_made_anew(made_tree: Path) -> None:
    moved = made_tree.rename(made_tree.parent / "moved")
    assert "anew (it is for another lock or another place)" in begin_to_make(moved)
    assert not (moved / ".venv").exists()


def test_the_environment_of_the_other_device_stays(tree: Path) -> None:
    (tree / ".venv").mkdir()
    (tree / ".venv" / STAMP).write_text("cuda 0123 /elsewhere\n", encoding="utf-8")
    assert f"making {tree}/.venv-cpu: the cpu set" in begin_to_make(tree)
    assert [path.name for path in (tree / ".venv").iterdir()] == [STAMP]


def test_somebodys_own_dot_venv_is_used_or_left_alone(tree: Path) -> None:
    ready_environment(tree / ".venv", tree)
    assert setup(tree).stdout == f"{tree}/.venv/bin/python\n"
    (tree / "requirement-cpu.txt").write_text("absent-package==3\n", encoding="utf-8")
    assert "was not made by this script and it lacks absent-package==3" in one_error(setup(tree), 2)
    assert (tree / ".venv/bin/python").exists()


@pytest.mark.slow
def test_a_failed_installation_says_where_its_log_is(tree: Path) -> None:
    for wheel in (tree / "wheels").iterdir():
        wheel.unlink()
    run = setup(tree)
    assert f"all of its output is in {tree}/.venv.log" in one_error(run, 1)
    assert "No matching distribution found for tinydep==1.0" in run.stderr
    assert not (tree / ".venv" / STAMP).exists()


def test_a_missing_wheel_folder_is_an_error(tree: Path) -> None:
    assert "no such folder" in one_error(setup(tree, EMOCALIBER_WHEELS="/no/such/folder"), 2)
    assert not (tree / ".venv").exists()


def test_a_python_that_only_prints_an_error_is_passed_over(tree: Path) -> None:
    shims = tree.parent / "shims"
    shims.mkdir()
    for name in ("python3.10", "python3.11", "python3.12", "python3"):
        (shims / name).write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n", encoding="utf-8")
        (shims / name).chmod(0o755)
    (shims / "python").symlink_to(getattr(sys, "_base_executable", sys.executable))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}."
    assert f"making {tree}/.venv: the cpu set, with Python {version}" in begin_to_make(
        tree, PATH=f"{shims}:/usr/bin:/bin"
    )
    (shims / "python").unlink()
    tools = tree.parent / "tools"
    tools.mkdir()
    used = "bash cat cut dirname grep ls mktemp rm sha256sum tail timeout"
    for tool in used.split():
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    assert "no Python 3.10, 3.11 or 3.12" in one_error(setup(tree, PATH=f"{shims}:{tools}"), 1)
