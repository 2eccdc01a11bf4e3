#!/usr/bin/env bash
# One run of `swift sft`: [STAGE=1|2] swift_sft.sh SETTINGS MODEL DATASET OUTPUT_DIR [extra flags of swift sft]
# Leaves checkpoints and logs in OUTPUT_DIR and the finished model, alone and with its card, in OUTPUT_DIR/final.
# What is checked before, and the variables that set its limits: check_sft_inputs.py --help
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$ROOT/setup_env.sh"
SETTINGS="$(realpath -m "$1")"
MODEL="$2"
DATASET="$(realpath -m "$3")"
OUTPUT_DIR="$(realpath -m "$4")"
shift 4
STAGE="${STAGE:-}"
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
IMAGE_ROOT="$(realpath "${IMAGE_ROOT:-$(dirname "$DATASET")}")"
export IMAGE_ROOT ROOT_IMAGE_DIR="$IMAGE_ROOT"
"$EMOCALIBER_PYTHON" "$ROOT/train/check_sft_inputs.py" --model "$MODEL" --dataset "$DATASET" \
  --settings "$SETTINGS" --output-dir "$OUTPUT_DIR" --stage "$STAGE" -- "$@"
TRAINED_ON="$DATASET"
if [[ -f "$OUTPUT_DIR/dataset.jsonl" ]]; then TRAINED_ON="$OUTPUT_DIR/dataset.jsonl"; fi # the good rows of it

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
export TOKENIZERS_PARALLELISM=false

cd "$ROOT"
mkdir -p "$OUTPUT_DIR"
# Goes on from the last checkpoint of an interrupted run; the trainer writes its state last, so one with it is whole.
last="$(find "$OUTPUT_DIR" -mindepth 2 -maxdepth 2 -path '*/checkpoint-*/trainer_state.json' -printf '%h\n' |
  sort -V | tail -n 1)"
if [[ -n "$last" ]]; then flags+=(--resume_from_checkpoint "$last"); fi
# --strict: a row that cannot be encoded ends the run; ms-swift would train on another row in its place and say nothing.
# --check_model: it asks ModelScope whether the local model is the newest, which tells it of the run and, without a
# network, takes a quarter of a minute.
"$EMOCALIBER_PYTHON" -m swift.cli.main sft "$SETTINGS" \
  --model "$MODEL" --model_type qwen2_5_vl --template qwen2_5_vl \
  --dataset "$TRAINED_ON" --output_dir "$OUTPUT_DIR" --add_version false \
  --external_plugins "$ROOT/train/swift_plugin.py" --load_from_cache_file false --report_to none \
  --strict true --check_model false "${flags[@]}" "$@" 2>&1 | tee -a "$OUTPUT_DIR/train.log"
"$EMOCALIBER_PYTHON" "$ROOT/train/export_checkpoint.py" --from "$OUTPUT_DIR" --to "$OUTPUT_DIR/final"
"$EMOCALIBER_PYTHON" "$ROOT/train/write_model_card.py" --model-dir "$OUTPUT_DIR/final" --stage "${STAGE:-other}" \
  --base "$MODEL" --dataset "$DATASET" --settings "$SETTINGS" --log "$OUTPUT_DIR" --engine swift -- "$@"
