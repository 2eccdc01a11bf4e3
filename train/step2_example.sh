#!/usr/bin/env bash
# Stage 2, supervised fine-tuning for verbalized confidence, from the model of stage 1. Without variables it trains
# EmoCaliber-mini: samples its stage-1 model, turns the agreement of the samples into confidences, then runs stage 2.
# The real run: MODEL=.../stage1/final DATASET=.../stage2_43k_w_conf.jsonl IMAGE_ROOT=... N_GPU=8
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

MODEL="${MODEL:-mini}"
if [[ "$MODEL" == mini ]]; then SIZE=mini N_GPU="${N_GPU:-1}"; else SIZE=7b N_GPU="${N_GPU:-8}"; fi
SETTINGS="${SETTINGS:-$ROOT/train/settings/stage2_$SIZE.yaml}"
OUTPUT_ROOT="${OUTPUT_ROOT:-$ROOT/train/output/$SIZE}"
OUTPUT_DIR="${OUTPUT_DIR:-$OUTPUT_ROOT/stage2}"
MINI_DATA="${MINI_DATA:-$ROOT/data/VECBench-mini}"
DATASET="${DATASET:-$MINI_DATA/train_stage2_chat.jsonl}"
N_SAMPLES="${N_SAMPLES:-6}" # mini: samples of the stage-1 model a row
export N_GPU IMAGE_ROOT="${IMAGE_ROOT:-}"

source "$ROOT/setup_env.sh"
if [[ "$MODEL" == mini ]]; then
  MODEL="$OUTPUT_ROOT/stage1/final"
  if [[ ! -f "$MODEL/config.json" || ! -f "$MINI_DATA/train_stage2.jsonl" ]]; then
    echo "error: no stage-1 model in $OUTPUT_ROOT or no data in $MINI_DATA: run train/step1_example.sh first" >&2
    exit 2
  fi
  "$EMOCALIBER_PYTHON" "$ROOT/inference/infer.py" --checkpoint "$MODEL" --data "$MINI_DATA/train_stage2.jsonl" \
    --output-dir "$OUTPUT_ROOT/stage1_samples" --n-samples "$N_SAMPLES" --temperature 1.0 \
    --batch-size 256 --max-new-tokens 256 --min-pixels 3136 --max-pixels 12544
  "$EMOCALIBER_PYTHON" "$ROOT/data/build_confidence_targets.py" --chains "$MINI_DATA/train_stage2.jsonl" \
    --samples "$OUTPUT_ROOT/stage1_samples/predictions.jsonl" --output "$DATASET"
fi
bash "$ROOT/train/swift_sft.sh" "$SETTINGS" "$MODEL" "$DATASET" "$OUTPUT_DIR" "$@"
