#!/usr/bin/env bash
# Stage 1, supervised fine-tuning for structured reasoning. Without variables it trains EmoCaliber-mini from nothing:
# builds the data, makes an untrained Qwen2.5-VL of a million parameters, warms it up on captions, then runs stage 1.
# The real run: MODEL=Qwen/Qwen2.5-VL-7B-Instruct DATASET=.../stage1_86k.jsonl IMAGE_ROOT=... N_GPU=8
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

MODEL="${MODEL:-mini}"
if [[ "$MODEL" == mini ]]; then SIZE=mini N_GPU="${N_GPU:-1}"; else SIZE=7b N_GPU="${N_GPU:-8}"; fi
SETTINGS="${SETTINGS:-$ROOT/train/settings/stage1_$SIZE.yaml}"
OUTPUT_ROOT="${OUTPUT_ROOT:-$ROOT/train/output/$SIZE}"
OUTPUT_DIR="${OUTPUT_DIR:-$OUTPUT_ROOT/stage1}"
MINI_DATA="${MINI_DATA:-$ROOT/data/VECBench-mini}"
DATASET="${DATASET:-$MINI_DATA/train_stage1.jsonl}"
N_TRAIN="${N_TRAIN:-16000}"         # mini: rows of all three stages
WARMUP_STEPS="${WARMUP_STEPS:-800}" # mini: steps of the caption warm-up
export N_GPU IMAGE_ROOT="${IMAGE_ROOT:-}"

source "$ROOT/setup_env.sh"
if [[ "$MODEL" == mini ]]; then
  "$EMOCALIBER_PYTHON" "$ROOT/data/build_mini.py" --output-dir "$MINI_DATA" --split train --n-train "$N_TRAIN"
  if [[ ! -f "$OUTPUT_ROOT/base/config.json" ]]; then
    "$EMOCALIBER_PYTHON" "$ROOT/train/make_tiny_base.py" --train-dir "$MINI_DATA" --output-dir "$OUTPUT_ROOT/base"
  fi
  bash "$ROOT/train/swift_sft.sh" "$ROOT/train/settings/warmup_mini.yaml" "$OUTPUT_ROOT/base" \
    "$MINI_DATA/train_captions.jsonl" "$OUTPUT_ROOT/warmup" --max_steps "$WARMUP_STEPS"
  MODEL="$OUTPUT_ROOT/warmup/final"
fi
bash "$ROOT/train/swift_sft.sh" "$SETTINGS" "$MODEL" "$DATASET" "$OUTPUT_DIR" "$@"
