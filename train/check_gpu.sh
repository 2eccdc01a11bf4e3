#!/usr/bin/env bash
# Does training work on this machine's GPU: runs all three stages in mini, some steps each, lets vLLM answer from each
# result, and says PASS or FAIL for each stage. Made to end within ten minutes on one GPU.
#   bash train/check_gpu.sh          all stages
#   CHECK_DIR=DIR bash train/check_gpu.sh 2      one again, from what the one before left in DIR
# Exit status: 0 when every stage passed, 1 when one failed, 2 without a GPU (ALLOW_CPU=1 runs it on the CPU).
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi

CHECK_DIR="${CHECK_DIR:-}"        # default: a new folder in train/output
export N_TRAIN="${N_TRAIN:-1600}" # rows of all three stages
export WARMUP_STEPS="${WARMUP_STEPS:-300}"
SFT_STEPS="${SFT_STEPS:-150}" # of stage 1 and of stage 2
RL_STEPS="${RL_STEPS:-4}"     # of stage 3, 2 or more: the first step of a warm-up changes nothing
export RL_ENGINE="${RL_ENGINE:-verl}"
STAGE_TIMEOUT="${STAGE_TIMEOUT:-280}" # seconds; a failed weight synchronisation hangs
N_ANSWERS="${N_ANSWERS:-16}"          # rows that vLLM answers from each result
ALLOW_CPU="${ALLOW_CPU:-}"
stages=("$@")
if ((${#stages[@]} == 0)); then stages=(1 2 3); fi

if ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  if [[ -z "$ALLOW_CPU" ]]; then
    echo "error: no NVIDIA GPU here (nvidia-smi lists none); ALLOW_CPU=1 runs the same check on the CPU" >&2
    exit 2
  fi
  device="CPU, $(nproc) cores"
else
  device="$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | head -n 1)"
fi
source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
mkdir -p "$ROOT/train/output" "${CHECK_DIR:-$ROOT/train/output}"
CHECK_DIR="$(realpath "${CHECK_DIR:-$(mktemp -d "$ROOT/train/output/check_gpu.XXXX")}")"
export SIZE=mini N_GPU=1 OUTPUT_ROOT="$CHECK_DIR" MINI_DATA="$CHECK_DIR/data"
unset MODEL DATASET SETTINGS OUTPUT_DIR IMAGE_ROOT

# Trains stage $1, lets vLLM answer from the result and compares its weights with those that it started from.
run_stage() {
  local stage="$1" before flags=(--max_steps "$SFT_STEPS")
  local final="$CHECK_DIR/stage$stage/final" answers="$CHECK_DIR/stage$stage/answers"
  case "$stage" in
  1) before="$CHECK_DIR/warmup/final" ;;
  2) before="$CHECK_DIR/stage1/final" ;;
  # From the committed stage-2 model: one of some steps earns the same reward for all rollouts, which teaches nothing.
  3) before="$ROOT/models/EmoCaliber-mini-stage2" flags=() && export MODEL="$before" STEPS="$RL_STEPS" ;;
  *) echo "error: $stage: give stages out of 1, 2 and 3" >&2 && return 2 ;;
  esac
  rm -rf "$CHECK_DIR/stage$stage"
  bash "$ROOT/train/step${stage}_example.sh" "${flags[@]}" || return 1
  if cmp -s "$before/model.safetensors" "$final/model.safetensors"; then
    echo "error: stage $stage left the weights as they were" && return 1
  fi
  head -n "$N_ANSWERS" "$MINI_DATA/train_stage3.jsonl" >"$MINI_DATA/check_rows.jsonl"
  "$EMOCALIBER_PYTHON" "$ROOT/inference/infer.py" --checkpoint "$final" --data "$MINI_DATA/check_rows.jsonl" \
    --output-dir "$answers" --max-new-tokens 256 --min-pixels 3136 --max-pixels 12544 || return 1
  (($(grep -c '"response"' "$answers/predictions.jsonl") == N_ANSWERS)) || return 1
}

"$EMOCALIBER_PYTHON" -I - <<'PYTHON'
from importlib.metadata import version

names = ("torch", "transformers", "vllm", "ms-swift", "verl")
print("versions: " + ", ".join(f"{name} {version(name)}" for name in names))
PYTHON
echo "device: $device; folder: $CHECK_DIR"
export -f run_stage
export ROOT CHECK_DIR SFT_STEPS RL_STEPS N_ANSWERS
for stage in "${stages[@]}"; do
  SECONDS=0
  log="$CHECK_DIR/stage$stage.log"
  # shellcheck disable=SC2016
  if timeout --kill-after=20 "$STAGE_TIMEOUT" bash -c 'run_stage "$1"' run_stage "$stage" >"$log" 2>&1; then
    echo "stage $stage: PASS in $SECONDS s"
  else
    echo "stage $stage: FAIL after $SECONDS s, the end of $log:"
    tail -n 15 "$log"
    exit 1
  fi
done
echo "all of stage ${stages[*]}: PASS"
