#!/usr/bin/env bash
# One run of `swift sft`: swift_sft.sh SETTINGS MODEL DATASET OUTPUT_DIR [extra flags of swift sft]
# Leaves checkpoints and logs in OUTPUT_DIR and the finished model, alone, in OUTPUT_DIR/final.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$ROOT/setup_env.sh"
SETTINGS="$(realpath "$1")" MODEL="$2" DATASET="$(realpath "$3")" OUTPUT_DIR="$(realpath -m "$4")"
shift 4
# A local folder as the model means that nothing has to be fetched.
if [[ -d "$MODEL" ]]; then
  MODEL="$(realpath "$MODEL")"
  export HF_HUB_OFFLINE=1
fi

if [[ -f "$OUTPUT_DIR/final/config.json" ]]; then
  echo "$OUTPUT_DIR/final: already trained; remove $OUTPUT_DIR to train again"
  exit 0
fi
"$EMOCALIBER_PYTHON" "$ROOT/train/check_sft_inputs.py" --model "$MODEL" --dataset "$DATASET"

flags=()
if ! nvidia-smi -L >/dev/null 2>&1; then
  flags+=(--use_cpu true)
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" OMP_WAIT_POLICY=passive
elif [[ "${N_GPU:-1}" -gt 1 ]]; then
  export NPROC_PER_NODE="$N_GPU"
fi
ROOT_IMAGE_DIR="$(cd "${IMAGE_ROOT:-$(dirname "$DATASET")}" && pwd)"
export ROOT_IMAGE_DIR TOKENIZERS_PARALLELISM=false USE_HF=1
PATH="$(dirname "$EMOCALIBER_PYTHON"):$PATH"

cd "$ROOT"
mkdir -p "$OUTPUT_DIR"
# Goes on from the last checkpoint of an interrupted run.
last="$(find "$OUTPUT_DIR" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1)"
[[ -n "$last" ]] && flags+=(--resume_from_checkpoint "$last")
"$EMOCALIBER_PYTHON" -m swift.cli.main sft "$SETTINGS" \
  --model "$MODEL" --model_type qwen2_5_vl --template qwen2_5_vl \
  --dataset "$DATASET" --output_dir "$OUTPUT_DIR" --add_version false \
  --system "You are a helpful assistant." \
  --external_plugins "$ROOT/train/swift_plugin.py" --load_from_cache_file false --report_to none \
  "${flags[@]}" "$@" 2>&1 | tee -a "$OUTPUT_DIR/train.log"
"$EMOCALIBER_PYTHON" "$ROOT/train/export_checkpoint.py" --from "$OUTPUT_DIR" --to "$OUTPUT_DIR/final"
