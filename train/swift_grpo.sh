#!/usr/bin/env bash
# One run of `swift rlhf` with GRPO: swift_grpo.sh SETTINGS MODEL CHATS OUTPUT_DIR [extra flags of swift rlhf]
# REWARD names the reward. Leaves checkpoints, logs and rewards.jsonl in OUTPUT_DIR and the finished model in
# OUTPUT_DIR/final.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$ROOT/setup_env.sh"
if (($# < 4)); then
  echo "error: usage: swift_grpo.sh SETTINGS MODEL CHATS OUTPUT_DIR [flags of swift rlhf]" >&2
  exit 2
fi
SETTINGS="$(realpath -m "$1")"
MODEL="$(realpath -m "$2")"
CHATS="$(realpath -m "$3")"
OUTPUT_DIR="$(realpath -m "$4")"
shift 4
for file in "$SETTINGS" "$MODEL/config.json" "$CHATS"; do
  if [[ ! -f "$file" ]]; then
    echo "error: $file: no such file; give SETTINGS MODEL CHATS OUTPUT_DIR" >&2
    exit 2
  fi
done
export REWARD="${REWARD:-brier}" REWARD_LOG="$OUTPUT_DIR/rewards.jsonl"

if [[ -f "$OUTPUT_DIR/final/config.json" ]]; then
  echo "$OUTPUT_DIR/final: already trained; remove $OUTPUT_DIR to train again"
  exit 0
fi

flags=()
if nvidia-smi -L >/dev/null 2>&1; then
  export NPROC_PER_NODE="${N_GPU:-1}"
  export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((NPROC_PER_NODE - 1)))}"
else
  flags+=(--use_cpu true)
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" OMP_WAIT_POLICY=passive
fi
ROOT_IMAGE_DIR="$(realpath "${IMAGE_ROOT:-$(dirname "$CHATS")}")"
export ROOT_IMAGE_DIR TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

cd "$ROOT"
mkdir -p "$OUTPUT_DIR"
# Goes on from the last checkpoint of an interrupted run; the trainer writes its state last, so one with it is whole.
last="$(find "$OUTPUT_DIR" -mindepth 2 -maxdepth 2 -path '*/checkpoint-*/trainer_state.json' -printf '%h\n' |
  sort -V | tail -n 1)"
if [[ -n "$last" ]]; then flags+=(--resume_from_checkpoint "$last"); fi
# --strict, --check_model: as in swift_sft.sh.
"$EMOCALIBER_PYTHON" -m swift.cli.main rlhf "$SETTINGS" \
  --model "$MODEL" --model_type qwen2_5_vl --template qwen2_5_vl \
  --dataset "$CHATS" --output_dir "$OUTPUT_DIR" --add_version false \
  --external_plugins "$ROOT/train/swift_plugin.py" "$ROOT/train/swift_grpo_plugin.py" \
  --load_from_cache_file false --report_to none --strict true --check_model false \
  "${flags[@]}" "$@" 2>&1 | tee -a "$OUTPUT_DIR/train.log"
"$EMOCALIBER_PYTHON" "$ROOT/train/export_checkpoint.py" --from "$OUTPUT_DIR" --to "$OUTPUT_DIR/final"
