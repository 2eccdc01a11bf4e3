#!/usr/bin/env bash
# The main job: run a checkpoint over a benchmark, evaluate, print both tables.
#   bash inference/infer_and_eval_example.sh                                   EmoCaliber-mini on VECBench-mini
#   CHECKPOINT=wudq/EmoCaliber DATA=/data/VECBench/test.jsonl N_GPU=8 bash inference/infer_and_eval_example.sh
# Every setting below can be given as an environment variable; extra arguments go to inference/infer.py.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi

if [[ -z "${CHECKPOINT:-}" ]]; then # the mini checkpoint sees images of 112 x 112 pixels
  MIN_PIXELS="${MIN_PIXELS:-3136}"
  MAX_PIXELS="${MAX_PIXELS:-12544}"
fi
if [[ -z "${CHECKPOINT:-}${DATA:-}" ]]; then EXPERIMENT_NAME="${EXPERIMENT_NAME:-mini}"; fi
CHECKPOINT="${CHECKPOINT:-$ROOT/models/EmoCaliber-mini}"
MINI_DATA="$ROOT/data/VECBench-mini"
DATA="${DATA:-$MINI_DATA/test.jsonl}"
IMAGE_ROOT="${IMAGE_ROOT:-$(dirname "$DATA")}"
EXPERIMENT_NAME="${EXPERIMENT_NAME:-$(basename "$CHECKPOINT")_$(basename "$(dirname "$DATA")")}"
OUTPUT_DIR="${OUTPUT_DIR:-$ROOT/infer_results/$EXPERIMENT_NAME}"
N_GPU="${N_GPU:-}" # engines side by side, one a GPU; without it infer.py chooses: 1, or 2 where no GPU is
TEMPERATURE="${TEMPERATURE:-0.7}"
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-1024}"
MIN_PIXELS="${MIN_PIXELS:-200704}" # 256 * 28 * 28
MAX_PIXELS="${MAX_PIXELS:-451584}" # 576 * 28 * 28
SEED="${SEED:-0}"

source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
if [[ "$DATA" == "$MINI_DATA/test.jsonl" ]]; then
  python "$ROOT/data/build_mini.py" --output-dir "$MINI_DATA" # does nothing when it is complete
fi
python "$ROOT/inference/infer.py" --checkpoint "$CHECKPOINT" --data "$DATA" --image-root "$IMAGE_ROOT" \
  --output-dir "$OUTPUT_DIR" ${N_GPU:+--workers "$N_GPU"} --temperature "$TEMPERATURE" \
  --max-new-tokens "$MAX_NEW_TOKENS" --min-pixels "$MIN_PIXELS" --max-pixels "$MAX_PIXELS" \
  --seed "$SEED" "$@"
python "$ROOT/inference/evaluate.py" --predictions "$OUTPUT_DIR/predictions.jsonl" --output-dir "$OUTPUT_DIR"
