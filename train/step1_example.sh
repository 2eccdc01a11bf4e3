#!/usr/bin/env bash
# Stage 1, supervised fine-tuning for structured reasoning.
#   bash train/step1_example.sh            EmoCaliber-mini from nothing: builds the data, makes an untrained Qwen2.5-VL
#                                          of a million parameters, warms it up on captions, then runs stage 1
#   MODEL=Qwen/Qwen2.5-VL-7B-Instruct DATASET=/data/stage1_86k.jsonl IMAGE_ROOT=/data bash train/step1_example.sh
# On other machines: SIZE=7b_lora_1gpu (one 80 GB GPU) or SIZE=3b_2gpu (two; MODEL=Qwen/Qwen2.5-VL-3B-Instruct).
# Every setting below can be given as an environment variable; extra arguments go to `swift sft`.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi

MODEL="${MODEL:-}"
SIZE="${SIZE:-$([[ -n "$MODEL" ]] && echo 7b_8gpu || echo mini)}" # mini, 7b_8gpu, 7b_lora_1gpu, 3b_2gpu
SETTINGS="${SETTINGS:-$ROOT/train/settings/stage1_$SIZE.yaml}"
OUTPUT_ROOT="${OUTPUT_ROOT:-$ROOT/train/output/$SIZE}"
OUTPUT_DIR="${OUTPUT_DIR:-$OUTPUT_ROOT/stage1}"
MINI_DATA="${MINI_DATA:-$ROOT/data/VECBench-mini}"
DATASET="${DATASET:-}"              # mini: train_stage1.jsonl of MINI_DATA
N_TRAIN="${N_TRAIN:-16000}"         # mini: rows of all three stages
WARMUP_STEPS="${WARMUP_STEPS:-800}" # mini: steps of the caption warm-up
SEED="${SEED:-0}"                   # the untrained weights and the order of the rows
case "$SIZE" in *_8gpu) N_GPU="${N_GPU:-8}" ;; *_2gpu) N_GPU="${N_GPU:-2}" ;; *) N_GPU="${N_GPU:-1}" ;; esac
export N_GPU IMAGE_ROOT="${IMAGE_ROOT:-}"

if [[ "$SIZE" != mini && (-z "$MODEL" || -z "$DATASET") ]]; then
  echo "error: SIZE=$SIZE needs MODEL (a folder or a hub name) and DATASET (JSON lines of chats)" >&2
  exit 2
fi
source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/variables.py"
if [[ "$SIZE" == mini ]]; then
  "$EMOCALIBER_PYTHON" "$ROOT/data/build_mini.py" --output-dir "$MINI_DATA" --split train --n-train "$N_TRAIN"
  DATASET="${DATASET:-$MINI_DATA/train_stage1.jsonl}"
fi
if [[ -z "$MODEL" ]]; then
  # Until the warm-up has begun, the seed may still be another.
  if [[ ! -f "$OUTPUT_ROOT/base/config.json" || ! -d "$OUTPUT_ROOT/warmup" ]]; then
    "$EMOCALIBER_PYTHON" "$ROOT/train/make_tiny_base.py" --train-dir "$MINI_DATA" --output-dir "$OUTPUT_ROOT/base" --seed "$SEED"
  fi
  STAGE=warmup bash "$ROOT/train/sft/swift_sft.sh" "$ROOT/train/settings/warmup_mini.yaml" "$OUTPUT_ROOT/base" \
    "$MINI_DATA/train_captions.jsonl" "$OUTPUT_ROOT/warmup" --max_steps "$WARMUP_STEPS" --seed "$SEED" --data_seed "$SEED"
  MODEL="$OUTPUT_ROOT/warmup/final"
fi
STAGE=1 bash "$ROOT/train/sft/swift_sft.sh" "$SETTINGS" "$MODEL" "$DATASET" "$OUTPUT_DIR" \
  --seed "$SEED" --data_seed "$SEED" "$@"
