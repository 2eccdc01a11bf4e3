#!/usr/bin/env bash
# Style, types and tests, all of them, in the one environment, two files of tests at a time; extra arguments go to
# pytest (-n 0: one after the other). The tests of the report page need Chromium: where it is missing it is installed
# from the distribution's packages, as root or by sudo.
#   bash tests/run.sh                  everything
#   bash tests/run.sh -m "not slow"    without what starts vLLM, ms-swift or verl
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$ROOT/setup_env.sh"
cd "$ROOT"

failed=()
check() { # NAME COMMAND...
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  if ! "$@"; then failed+=("$name ($((SECONDS - start)) s)"); fi
}

mapfile -t shell_files < <(
  find . \( -path './.venv*' -o -path ./.git \) -prune -o -type f \( -name '*.sh' -o -path ./.ci/run \) -print | sort
)

check "ruff format" python -m ruff format --check .
check "ruff check" python -m ruff check .
check "mypy" python -m mypy --strict emocaliber
check "shellcheck" shellcheck "${shell_files[@]}"
check "shfmt" shfmt -i 2 -d "${shell_files[@]}"
check "chromium" bash tests/install_browser.sh
style=("${failed[@]}")
check "pytest" python -m pytest -q --numprocesses 2 --dist loadfile --durations 20 "$@"
if ((${#style[@]})); then echo "error: failed before pytest: ${style[*]}"; fi
((${#failed[@]} == 0))
