#!/usr/bin/env bash
# Format, lint, types, shell style and tests, in the environment of setup_env.sh. Further arguments go to pytest.
#
#   bash tests/run.sh             every day: all tests but the slow ones
#   bash tests/run.sh --all       the slow tests too, and more examples of every property
#   bash tests/run.sh --slow      the slow tests alone, without the other checks
#   bash tests/run.sh -n 0 -k resume        one process, and only the tests of this name
#
#   EMOCALIBER_TESTS_END=SECONDS  no test starts after this time (seconds since 1970); what did not start is counted
#
# The tests of the report page need Chromium. If it is missing, the distribution's package is installed, as root or by
# sudo. Slow are the tests that take more than ten seconds; one real run of everything that matters is not among them.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
  exit 0
fi
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
tests=every-day
case "${1:-}" in --all | --slow) tests="${1#--}" && shift ;; esac
source "$ROOT/setup_env.sh"
cd "$ROOT"

failed=()
check() { # NAME COMMAND...
  local name=$1 start=$SECONDS status=0
  shift
  echo "== $name"
  "$@" || status=$?
  echo "   $((SECONDS - start)) s"
  if ((status)); then failed+=("$name"); fi
}

check_style() {
  local shell_files
  mapfile -t shell_files < <(
    find . \( -path './.venv*' -o -path ./.git \) -prune -o -type f \( -name '*.sh' -o -path ./.ci/run \) -print | sort
  )
  check "ruff format" python -m ruff format --check .
  check "ruff check" python -m ruff check .
  check "mypy" python -m mypy
  check "shellcheck" shellcheck "${shell_files[@]}"
  check "shfmt" shfmt -i 2 -d "${shell_files[@]}"
}

# Two files of tests at a time, in the order of tests/conftest.py.
pytest=(python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 20)
case "$tests" in
every-day) pytest+=(-m "not slow") ;;
slow) pytest+=(-m slow) ;;
esac
if [[ "$tests" != every-day ]]; then export HYPOTHESIS_PROFILE=all; fi

if [[ "$tests" != slow ]]; then check_style; fi
check "chromium" bash tests/install_browser.sh
before_pytest=("${failed[@]}")
check "pytest" "${pytest[@]}" "$@"
if ((${#before_pytest[@]})); then
  printf -v names '%s, ' "${before_pytest[@]}"
  echo "error: failed before pytest: ${names%, }"
fi
((${#failed[@]} == 0))
