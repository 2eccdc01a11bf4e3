"""What `pip install` brings: the lists of the package are those of the locks, and the small one is enough."""

import importlib.metadata
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from setuptools.config.pyprojecttoml import read_configuration

from emocaliber import environment

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"data", "inference", "train", "dev"}


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml as setuptools reads it, with the files that it names."""
    project: dict[str, Any] = read_configuration(ROOT / "pyproject.toml", expand=True)["project"]
    return project


def pins(lines: list[str]) -> dict[str, str]:
    """Distribution -> version of the running Python."""
    wanted = [each for line in lines if applies(each := Requirement(line.split(" #")[0]))]
    return {each.name: str(each.specifier).removeprefix("==") for each in wanted}


def test_the_extras_together_are_the_whole_environment(project: dict[str, Any]) -> None:
    # setuptools spells the key of a table that it has expanded in its own way.
    extras = project.get("optional_dependencies") or project["optional-dependencies"]
    assert set(extras) == EXTRAS
    everything = [*project["dependencies"], *extras["train"], *extras["dev"]]
    assert pins(everything) == environment.requirements(ROOT / "requirement.txt")
    assert set(extras["data"]) < set(extras["inference"]) < set(extras["train"])


def test_no_package_is_in_two_lists() -> None:
    lines = [
        line.split("#")[0].strip()
        for file in sorted((ROOT / "requirements").glob("*.txt"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    names = [normalised(Requirement(line).name) for line in lines if line and applies(Requirement(line))]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_only_emocaliber_is_installed_with_its_types_and_the_page() -> None:
    tool = read_configuration(ROOT / "pyproject.toml", expand=True)["tool"]["setuptools"]
    assert {package.split(".")[0] for package in tool["packages"]} == {"emocaliber"}
    for pattern in tool["package-data"]["emocaliber"]:
        assert list((ROOT / "emocaliber").glob(pattern)), pattern
    # The root on the path of an editable install, which setuptools gives to this very table only.
    assert tool["package-dir"] == {"": "."}


def brought_by(lines: list[str]) -> set[str]:
    """The distributions of this environment that installing these lines brings, with what they need."""
    found: set[str] = set()
    waiting = [normalised(name) for name in pins(lines)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needed = [Requirement(line) for line in importlib.metadata.requires(name) or []]
            waiting += [normalised(each.name) for each in needed if applies(each)]
    return found


@pytest.mark.slow
def test_evaluation_and_comparison_need_nothing_but_what_the_package_brings(
    project: dict[str, Any], tmp_path: Path
) -> None:
    brought = brought_by(project["dependencies"])
    hidden = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not {*brought, "emocaliber"} & {normalised(name) for name in distributions}
    ]
    assert {"torch", "transformers", "vllm", "verl", "pandas", "pyarrow"} <= set(hidden)
    script = tmp_path / "without.py"
    script.write_text(
        "import runpy, sys\n"
        "class Hidden:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {set(hidden)!r}:\n"
        "            raise ModuleNotFoundError(f'{name} is hidden', name=name)\n"
        "sys.meta_path.insert(0, Hidden)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )

    def run(*command: str) -> str:
        arguments = [sys.executable, str(script), str(ROOT / command[0]), *command[1:]]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    rows = str(ROOT / "tests/golden/merged.jsonl")
    assert "| Overall " in run(
        "inference/evaluate.py", "--predictions", rows, "--output-dir", "scores", "--draws", "0"
    )
    assert {"metric_conf.log", "metrics.json", "report.html"} <= {
        p.name for p in (tmp_path / "scores").iterdir()
    }
    assert "Overall" in run("inference/compare.py", "scores", rows, "--draws", "100")
    run("inference/prediction_page.py", "--predictions", rows, "--output", "page.html")


def test_the_package_is_typed_and_light_to_import() -> None:
    assert (ROOT / "emocaliber" / "py.typed").is_file()
    code = "import sys; before = set(sys.modules); import emocaliber; print(set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "{'emocaliber'}\n"
