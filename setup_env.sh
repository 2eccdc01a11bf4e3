#!/usr/bin/env bash
# Finds the Python environment that everything here runs in, or makes it once, in .venv.
#
#   bash setup_env.sh             prints the interpreter to use
#   source setup_env.sh           exports it as EMOCALIBER_PYTHON and puts its folder first on PATH; sets no shell option
#                                 and defines no function. Every entry point does this.
#
# The first of these that has what is needed is used as it is: EMOCALIBER_PYTHON, the active virtual or conda
# environment, .venv, the python3 on PATH. With an NVIDIA GPU the CUDA set is needed (requirement.txt), without one the
# CPU set (requirement-cpu.txt): the frameworks in the pinned versions, the other packages in any version. If none has
# it, .venv is made from the locked set (.venv-cpu or .venv-cuda if .venv holds the other set). A finished environment
# gets a stamp. Without the stamp, or with the stamp of another lock, it is made anew; pip's cache saves most of the
# download. Once it is there, no network is used.
#
#   EMOCALIBER_PYTHON=PATH        the interpreter of a ready environment, or a plain Python 3.10-3.12 to make .venv with
#   EMOCALIBER_DEVICE=cpu|cuda    the set, instead of looking for a GPU
#   EMOCALIBER_WHEELS=DIR         install from this folder only, without a network. Fill it on a machine of the same kind:
#                                 pip download --no-deps -d DIR -r requirement-cpu.lock
#   EMOCALIBER_DISK_GB=N          free space that an installation needs, instead of 12 (CUDA: 25)
#
# pip's own settings (mirrors, proxies, cache) apply. Exit status: 2 for a setting that cannot be used, 1 for a failure.

if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
  EMOCALIBER_EXPORTS="$(bash "${BASH_SOURCE[0]}" --exports)" || return
  eval "$EMOCALIBER_EXPORTS"
  unset EMOCALIBER_EXPORTS
  return 0
fi
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
  exit 0
fi

set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CHECKER="$ROOT/emocaliber/environment.py"
STAMP=.emocaliber-finished
UNFINISHED=.emocaliber-unfinished
# These run with -I: without it `python -c` and `-m` would import from the folder that the user happens to be in.
CAN_MAKE='import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))'
IS_PLAIN='import sys; sys.exit(sys.prefix != sys.base_prefix)'
PYTHON_NAME='import sys; print("python%d.%d" % sys.version_info[:2])'

say() { printf '[setup_env] %s\n' "$*" >&2; }

die() { # STATUS MESSAGE
  printf 'error: %s\n' "$2" >&2
  exit "$1"
}

find_device() {
  case "${EMOCALIBER_DEVICE:-}" in
  cpu | cuda) echo "$EMOCALIBER_DEVICE" ;;
  "")
    if [[ -e /dev/nvidia0 ]] || timeout 20 nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then echo cuda; else echo cpu; fi
    ;;
  *) die 2 "EMOCALIBER_DEVICE is '$EMOCALIBER_DEVICE': give cpu or cuda" ;;
  esac
}

# Sets `exports` when the environment of PYTHON holds what is needed, else `lacking`.
ready() { # PYTHON
  local status=0
  exports="$("$1" "$CHECKER" exports "$requirements" 2>"$notes")" || status=$?
  if ((status == 1)); then lacking="it lacks $(tail -n 1 "$notes")"; else lacking="$1 does not run"; fi
  return "$status"
}

# Says which environment is used and ends.
use() { # NAME
  say "using $1 ($device set)"
  if [[ "$mode" == --exports ]]; then echo "$exports"; else (eval "$exports" && echo "$EMOCALIBER_PYTHON"); fi
  exit 0
}

use_given_or_active() {
  local folder
  # If an earlier source of this file exported it for .venv, the user did not ask for it.
  if [[ -n "${EMOCALIBER_PYTHON:-}" && "$EMOCALIBER_PYTHON" != "$ROOT"/.venv*/bin/* ]]; then
    ready "$EMOCALIBER_PYTHON" && use "$EMOCALIBER_PYTHON"
    { "$EMOCALIBER_PYTHON" -I -c "$IS_PLAIN" && "$EMOCALIBER_PYTHON" -I -c "$CAN_MAKE"; } &>/dev/null ||
      die 2 "EMOCALIBER_PYTHON=$EMOCALIBER_PYTHON: $lacking; install $lock into it with pip --no-deps, or unset it"
    plain_python="$EMOCALIBER_PYTHON"
  fi
  for folder in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
    if [[ -n "$folder" && "$folder" != "$env_dir" ]]; then
      ready "$folder/bin/python" && use "the active environment $folder"
      say "the active environment $folder is not used: $lacking"
    fi
  done
}

stamp_text() { echo "$device $(sha256sum <"$lock" | cut -d ' ' -f 1) $env_dir"; }

# Uses .venv if it is finished, else says in `why_anew` why it is not.
use_made() {
  why_anew=
  if [[ "$(cat "$env_dir/$STAMP" 2>/dev/null)" == "$(stamp_text)" ]]; then
    if [[ -z "$plain_python" || -e "$env_dir/bin/$("$plain_python" -I -c "$PYTHON_NAME")" ]]; then
      ready "$env_dir/bin/python" && use "$env_dir"
      why_anew=" anew ($lacking)"
    else
      why_anew=" anew (another Python is asked for)"
    fi
  elif [[ -e "$env_dir/$STAMP" ]]; then
    why_anew=" anew (it is for another lock or another place)"
  elif [[ -e "$env_dir/$UNFINISHED" ]]; then
    why_anew=" anew (it was left unfinished)"
  elif [[ -n "$(ls -A "$env_dir" 2>/dev/null)" ]]; then
    ready "$env_dir/bin/python" && use "$env_dir"
    die 2 "$env_dir was not made by this script and $lacking: complete it from $lock, or move it away"
  fi
}

find_plain_python() {
  local name
  for name in ${plain_python:+"$plain_python"} python3.11 python3.12 python3.10 python3 python; do
    # A name can be a version manager's shim that only prints an error: run it. In an active environment it is that
    # environment's, which gives its base.
    if "$name" -I -c "$CAN_MAKE" &>/dev/null; then
      "$name" -I -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
      return
    fi
  done
  die 1 "no Python 3.10, 3.11 or 3.12 with venv and ensurepip on PATH (Debian, Ubuntu: apt-get install python3-venv)"
}

# One start makes the environment, another waits. The lock stays with pip if this script is killed and pip is not.
hold_lock() { # PLAIN_PYTHON
  local take='import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | (fcntl.LOCK_NB if sys.argv[1:] else 0))'
  [[ -w "$ROOT" ]] || die 1 "cannot write to $ROOT, where the environment would be made"
  exec 9>"$env_dir.lock"
  if ! "$1" -I -c "$take" at-once 2>/dev/null; then
    say "another start is making $env_dir (its output: $env_dir.log); waiting for it"
    "$1" -I -c "$take"
  fi
}

check_disk() {
  local free_gb need_gb=12
  if [[ "$device" == cuda ]]; then need_gb=25; fi
  need_gb=${EMOCALIBER_DISK_GB:-$need_gb}
  free_gb=$(($(df -Pk "$ROOT" | awk 'NR == 2 { print $4 }') / 1048576))
  if ((free_gb < need_gb)); then die 1 "$free_gb GB free on the disk of $ROOT, $need_gb GB needed to install"; fi
}

# Runs a command with its output in the log, and says how long it took.
step() { # TITLE COMMAND...
  local title=$1 start=$SECONDS shown=0
  shift
  say "$title"
  "$@" >>"$log" 2>&1 &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.3
    if ((SECONDS - start >= shown + 30)); then
      shown=$((SECONDS - start))
      say "  $shown s: $(grep -v "^WARNING" "$log" | tail -n 1 | cut -c 1-90)"
    fi
  done
  if ! wait "$child"; then
    tail -n 15 "$log" >&2
    die 1 "'$title' failed after $((SECONDS - start)) s; all of its output is in $log"
  fi
  child=
  say "  done in $((SECONDS - start)) s"
}

make_environment() { # PLAIN_PYTHON
  local pip
  log="$env_dir.log"
  : >"$log"
  say "making $env_dir$why_anew: the $device set, with $("$1" -V); output goes to $log"
  # Renamed before it is removed: a half-removed environment must not look like one that the user made.
  rm -rf "$env_dir.old"
  if [[ -e "$env_dir" ]]; then mv "$env_dir" "$env_dir.old"; fi
  rm -rf "$env_dir.old"
  check_disk
  mkdir "$env_dir"
  touch "$env_dir/$UNFINISHED"
  mkdir "$env_dir/tmp"
  step "a virtual environment" "$1" -I -m venv "$env_dir"
  # TMPDIR: several GB of wheels, more than some /tmp holds. What pip is told of other places does not apply here.
  pip=(env -u PYTHONPATH -u PYTHONHOME -u PIP_TARGET -u PIP_PREFIX PIP_USER=0 "TMPDIR=$env_dir/tmp"
    "$env_dir/bin/python" -I -m pip install --no-input --disable-pip-version-check --progress-bar off
    --no-deps --no-compile --no-build-isolation)
  if [[ -n "${EMOCALIBER_WHEELS:-}" ]]; then pip+=(--no-index --find-links "$EMOCALIBER_WHEELS"); fi
  # A few packages come as source only: the locked setuptools builds them, not whichever is newest.
  if grep '^setuptools==' "$lock" >"$env_dir/tmp/setuptools.txt"; then
    step "setuptools" "${pip[@]}" -r "$env_dir/tmp/setuptools.txt"
  fi
  step "the packages of ${lock##*/} (minutes)" "${pip[@]}" -r "$lock"
  step "what no package brings" "$env_dir/bin/python" "$CHECKER" complete "$requirements"
  step "a first import of the frameworks" "$env_dir/bin/python" "$CHECKER" load "$requirements"
  rm -rf "$env_dir/tmp"
  stamp_text >"$env_dir/$STAMP.part"
  mv "$env_dir/$STAMP.part" "$env_dir/$STAMP"
  rm "$env_dir/$UNFINISHED"
  say "made in $SECONDS s, $(du -sh "$env_dir" | cut -f 1)"
}

mode=${1:-}
[[ "$mode" == "" || "$mode" == --exports ]] || die 2 "$mode: no such argument; see --help"
if [[ -n "${EMOCALIBER_WHEELS:-}" && ! -d "$EMOCALIBER_WHEELS" ]]; then
  die 2 "EMOCALIBER_WHEELS=$EMOCALIBER_WHEELS: no such folder"
fi
device="$(find_device)"
requirements=requirement.txt
if [[ "$device" == cpu ]]; then requirements=requirement-cpu.txt; fi
lock="$ROOT/${requirements%.txt}.lock"
env_dir="$ROOT/.venv"
if [[ -e "$env_dir/$STAMP" && "$(cut -d ' ' -f 1 "$env_dir/$STAMP")" != "$device" ]]; then env_dir="$ROOT/.venv-$device"; fi
exports='' lacking='' plain_python='' child='' log='' why_anew=''
notes="$(mktemp)"
trap '[[ -z "$child" ]] || kill "$child" 2>/dev/null || true; rm -f "$notes"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

use_given_or_active
use_made
if [[ -z "$plain_python" ]] && command -v python3 >/dev/null && ready python3; then use "$(command -v python3)"; fi
plain_python="$(find_plain_python)"
hold_lock "$plain_python"
use_made # by the start that this one waited for
make_environment "$plain_python"
use_made
[[ -z "$lacking" ]] || die 1 "$env_dir is made, but $lacking"
