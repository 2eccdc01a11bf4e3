#!/usr/bin/env bash
# One run of `swift sft`: swift_sft.sh SETTINGS MODEL DATASET OUTPUT_DIR [extra flags of swift sft]
# Leaves checkpoints and logs in OUTPUT_DIR and the finished model, alone, in OUTPUT_DIR/final.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$ROOT/setup_env.sh"
SETTINGS="$(realpath -m "$1")"
MODEL="$2"
DATASET="$(realpath -m "$3")"
OUTPUT_DIR="$(realpath -m "$4")"
shift 4
if [[ ! -f "$SETTINGS" ]]; then
  echo "error: $SETTINGS: no such settings file; see train/settings" >&2
  exit 2
fi
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
if nvidia-smi -L >/dev/null 2>&1; then
  # Always through torchrun, on as many GPUs as asked for: with more of them in sight and no launcher, ms-swift would
  # spread one model over all.
  export NPROC_PER_NODE="${N_GPU:-1}"
  export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((NPROC_PER_NODE - 1)))}"
else
  flags+=(--use_cpu true)
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" OMP_WAIT_POLICY=passive
fi
ROOT_IMAGE_DIR="$(realpath "${IMAGE_ROOT:-$(dirname "$DATASET")}")"
export ROOT_IMAGE_DIR TOKENIZERS_PARALLELISM=false

cd "$ROOT"
mkdir -p "$OUTPUT_DIR"
# Goes on from the last checkpoint of an interrupted run; the trainer writes its state last, so one with it is whole.
last="$(find "$OUTPUT_DIR" -mindepth 2 -maxdepth 2 -path '*/checkpoint-*/trainer_state.json' -printf '%h\n' |
  sort -V | tail -n 1)"
if [[ -n "$last" ]]; then flags+=(--resume_from_checkpoint "$last"); fi
"$EMOCALIBER_PYTHON" -m swift.cli.main sft "$SETTINGS" \
  --model "$MODEL" --model_type qwen2_5_vl --template qwen2_5_vl \
  --dataset "$DATASET" --output_dir "$OUTPUT_DIR" --add_version false \
  --external_plugins "$ROOT/train/swift_plugin.py" --load_from_cache_file false --report_to none \
  "${flags[@]}" "$@" 2>&1 | tee -a "$OUTPUT_DIR/train.log"
"$EMOCALIBER_PYTHON" "$ROOT/train/export_checkpoint.py" --from "$OUTPUT_DIR" --to "$OUTPUT_DIR/final"
