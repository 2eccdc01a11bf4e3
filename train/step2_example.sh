#!/usr/bin/env bash
# Stage 2, supervised fine-tuning for verbalized confidence, from the model of stage 1.
#   bash train/step2_example.sh            EmoCaliber-mini: samples its stage-1 model, turns the agreement of the samples
#                                          into confidences, then runs stage 2
#   SIZE=7b_8gpu DATASET=/data/stage2_43k_w_conf.jsonl IMAGE_ROOT=/data bash train/step2_example.sh
# SIZE=7b_lora_1gpu and SIZE=3b_2gpu are for other machines. The stage-1 model is the one that stage 1 of this SIZE left,
# unless MODEL names another. Every setting below can be given as an environment variable; extra arguments go to
# `swift sft`.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi

SIZE="${SIZE:-$([[ -n "${MODEL:-}" ]] && echo 7b_8gpu || echo mini)}" # mini, 7b_8gpu, 7b_lora_1gpu, 3b_2gpu
SETTINGS="${SETTINGS:-$ROOT/train/settings/stage2_$SIZE.yaml}"
OUTPUT_ROOT="${OUTPUT_ROOT:-$ROOT/train/output/$SIZE}"
OUTPUT_DIR="${OUTPUT_DIR:-$OUTPUT_ROOT/stage2}"
MINI_DATA="${MINI_DATA:-$ROOT/data/VECBench-mini}"
DATASET="${DATASET:-}"                   # mini: without it the stage-1 model is sampled
N_SAMPLED_ROWS="${N_SAMPLED_ROWS:-2400}" # mini: rows trained on, the first ones
N_SAMPLES="${N_SAMPLES:-16}"             # mini: of each of them
SEED="${SEED:-0}"
case "$SIZE" in *_8gpu) N_GPU="${N_GPU:-8}" ;; *_2gpu) N_GPU="${N_GPU:-2}" ;; *) N_GPU="${N_GPU:-1}" ;; esac
export SIZE N_GPU IMAGE_ROOT="${IMAGE_ROOT:-}" # SIZE: of the same value when supervise.py starts this again

MODEL="${MODEL:-$OUTPUT_ROOT/stage1/final}"
if [[ "$MODEL" == "$OUTPUT_ROOT/stage1/final" && ! -f "$MODEL/config.json" ]]; then
  echo "error: no stage-1 model in $OUTPUT_ROOT: run train/step1_example.sh first, or name one as MODEL" >&2
  exit 2
fi
if [[ "$SIZE" != mini && -z "$DATASET" ]]; then
  echo "error: SIZE=$SIZE needs DATASET (JSON lines of chats with a confidence)" >&2
  exit 2
fi
source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/variables.py"
if [[ -z "$DATASET" ]]; then
  if [[ ! -f "$MINI_DATA/train_stage2.jsonl" ]]; then
    echo "error: no data in $MINI_DATA: run train/step1_example.sh first" >&2
    exit 2
  fi
  "$EMOCALIBER_PYTHON" "$ROOT/inference/infer.py" --checkpoint "$MODEL" \
    --data "$MINI_DATA/train_stage2.jsonl" --output-dir "$OUTPUT_ROOT/stage1_samples" --limit "$N_SAMPLED_ROWS" \
    --n-samples "$N_SAMPLES" --temperature 1.0 --seed "$SEED" --batch-size 256 --max-new-tokens 256 --min-pixels 3136 --max-pixels 12544
  DATASET="$OUTPUT_ROOT/train_stage2_chat.jsonl" # a file of ours: never one that was given
  IMAGE_ROOT="${IMAGE_ROOT:-$MINI_DATA}"
  "$EMOCALIBER_PYTHON" "$ROOT/data/build_confidence_targets.py" --chains "$MINI_DATA/train_stage2.jsonl" \
    --samples "$OUTPUT_ROOT/stage1_samples/predictions.jsonl" --output "$DATASET"
fi
STAGE=2 bash "$ROOT/train/sft/swift_sft.sh" "$SETTINGS" "$MODEL" "$DATASET" "$OUTPUT_DIR" \
  --seed "$SEED" --data_seed "$SEED" "$@"
