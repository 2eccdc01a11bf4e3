#!/usr/bin/env bash
# One run of `swift rlhf` with GRPO: swift_grpo.sh SETTINGS MODEL CHATS OUTPUT_DIR [extra flags of swift rlhf]
# REWARD names the reward. Leaves checkpoints, logs and rewards.jsonl in OUTPUT_DIR and the finished model in
# OUTPUT_DIR/final.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi
source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
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
"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/variables.py"

if [[ -f "$OUTPUT_DIR/final/config.json" ]]; then
  echo "$OUTPUT_DIR/final: already trained; remove $OUTPUT_DIR to train again"
  exit 0
fi

ROOT_IMAGE_DIR="$(realpath "${IMAGE_ROOT:-$(dirname "$CHATS")}")"
export ROOT_IMAGE_DIR HF_HUB_OFFLINE=1

bash "$ROOT/train/sft/swift_run.sh" rlhf "$SETTINGS" "$MODEL" "$CHATS" "$OUTPUT_DIR" \
  --external_plugins "$ROOT/train/sft/swift_plugin.py" "$ROOT/train/rl/swift_grpo_plugin.py" "$@"
