"""What tests of the build of VECBench share: imitated releases, and a benchmark built from them."""

import sys
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import raw_trees as trees
from vecbench_builds import built, make_releases


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_releases(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def benchmark(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(raw, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def fi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.make_fi(tmp_path_factory.mktemp("fi"), 20)
