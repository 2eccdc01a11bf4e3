#!/usr/bin/env bash
# One run of `swift sft`: [STAGE=1|2] swift_sft.sh SETTINGS MODEL DATASET OUTPUT_DIR [extra flags of swift sft]
# Leaves checkpoints and logs in OUTPUT_DIR and the finished model, alone and with its card, in OUTPUT_DIR/final.
# What is checked before, and the variables that set its limits: train/sft/check_inputs.py --help
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi
source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
if (($# < 4)); then
  echo "error: usage: swift_sft.sh SETTINGS MODEL DATASET OUTPUT_DIR [flags of swift sft]" >&2
  exit 2
fi
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

facts=(--stage "${STAGE:-other}" --base "$MODEL" --dataset "$DATASET" --settings "$SETTINGS" --engine swift)
"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/begin.py" --output-dir "$OUTPUT_DIR" "${facts[@]}" -- "$@"
card() { # also of a model that an interrupted start has left without it
  "$EMOCALIBER_PYTHON" "$ROOT/train/checkpoints/model_card.py" --model-dir "$OUTPUT_DIR/final" --log "$OUTPUT_DIR" \
    "${facts[@]}" -- "$@"
}
if [[ -f "$OUTPUT_DIR/final/config.json" ]]; then
  echo "$OUTPUT_DIR/final: already trained; remove $OUTPUT_DIR to train again"
  if [[ -f "$OUTPUT_DIR/run.json" && ! -f "$OUTPUT_DIR/final/README.md" ]]; then card "$@"; fi
  exit 0
fi
IMAGE_ROOT="$(realpath -m "${IMAGE_ROOT:-$(dirname "$DATASET")}")"
export IMAGE_ROOT ROOT_IMAGE_DIR="$IMAGE_ROOT"
"$EMOCALIBER_PYTHON" "$ROOT/train/sft/check_inputs.py" --model "$MODEL" --dataset "$DATASET" \
  --settings "$SETTINGS" --output-dir "$OUTPUT_DIR" --stage "$STAGE" -- "$@"
TRAINED_ON="$DATASET"
if [[ -f "$OUTPUT_DIR/dataset.jsonl" ]]; then TRAINED_ON="$OUTPUT_DIR/dataset.jsonl"; fi # the good rows of it

bash "$ROOT/train/sft/swift_run.sh" sft "$SETTINGS" "$MODEL" "$TRAINED_ON" "$OUTPUT_DIR" \
  --external_plugins "$ROOT/train/sft/swift_plugin.py" "$@"
card "$@"
