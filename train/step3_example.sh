#!/usr/bin/env bash
# Stage 3, GRPO with a calibration reward, from the model of stage 2.
#   bash train/step3_example.sh            EmoCaliber-mini by verl: builds the data if it is not there, makes verl's
#                                          Parquet of it, trains
#   SIZE=7b_8gpu RECORDS=/data/stage3.jsonl VAL_RECORDS=/data/held_out.jsonl IMAGE_ROOT=/data \
#       bash train/step3_example.sh
# SIZE=7b_lora_1gpu and SIZE=3b_2gpu are for other machines. Records are what inference reads, see data/README.md. Every
# setting below can be given as an environment variable; extra arguments go to the engine: keys of verl
# (actor_rollout_ref.rollout.n=16), or flags of `swift rlhf` with RL_ENGINE=swift.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi

SIZE="${SIZE:-$([[ -n "${MODEL:-}" ]] && echo 7b_8gpu || echo mini)}" # mini, 7b_8gpu, 7b_lora_1gpu, 3b_2gpu
RL_ENGINE="${RL_ENGINE:-verl}"                                        # verl, or swift (mini: faster on two cores)
if [[ "$SIZE" == mini ]]; then REWARD="${REWARD:-brier}"; else REWARD="${REWARD:-emocaliber}"; fi
OUTPUT_ROOT="${OUTPUT_ROOT:-$ROOT/train/output/$SIZE}"
OUTPUT_DIR="${OUTPUT_DIR:-$OUTPUT_ROOT/stage3}"
MINI_DATA="${MINI_DATA:-$ROOT/data/VECBench-mini}"
N_TRAIN="${N_TRAIN:-16000}" # mini: rows of all three stages
RECORDS="${RECORDS:-$([[ "$SIZE" != mini ]] || echo "$MINI_DATA/train_stage3.jsonl")}"
VAL_RECORDS="${VAL_RECORDS:-}" # shown during the run; default: N_VAL rows of RECORDS, which are trained on as well
N_VAL="${N_VAL:-64}"
STEPS="${STEPS:-}" # optimizer steps; default: what the settings say
LR="${LR:-}"       # learning rate; likewise
SEED="${SEED:-0}"
case "$SIZE" in *_8gpu) N_GPU="${N_GPU:-8}" ;; *_2gpu) N_GPU="${N_GPU:-2}" ;; *) N_GPU="${N_GPU:-1}" ;; esac
export SIZE REWARD N_GPU # SIZE: of the same value when supervise.py starts this again

case "$RL_ENGINE" in
verl) SETTINGS="${SETTINGS:-$ROOT/train/settings/stage3_$SIZE.yaml}" ;;
swift) SETTINGS="${SETTINGS:-$ROOT/train/settings/stage3_${SIZE}_swift.yaml}" ;;
*)
  echo "error: RL_ENGINE=$RL_ENGINE: give verl or swift" >&2
  exit 2
  ;;
esac
if [[ ! -f "$SETTINGS" ]]; then
  echo "error: $SETTINGS: no such settings file for RL_ENGINE=$RL_ENGINE SIZE=$SIZE; see train/settings" >&2
  exit 2
fi
if [[ -z "$RECORDS" ]]; then
  echo "error: SIZE=$SIZE needs RECORDS (JSON lines with ground_truth and candidates, see data/README.md)" >&2
  exit 2
fi
if [[ -z "${MODEL:-}" ]]; then
  candidates=("$OUTPUT_ROOT/stage2/final")
  if [[ "$SIZE" == mini ]]; then candidates+=("$ROOT/models/EmoCaliber-mini-stage2"); fi
  for MODEL in "${candidates[@]}" ""; do [[ ! -f "$MODEL/config.json" ]] || break; done
  if [[ -z "$MODEL" ]]; then
    echo "error: no stage-2 model in $OUTPUT_ROOT: run train/step2_example.sh first, or name one as MODEL" >&2
    exit 2
  fi
fi
source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/variables.py"
echo "stage 3 of $SIZE by $RL_ENGINE with the reward $REWARD, from $MODEL"
if [[ "$RECORDS" == "$MINI_DATA/train_stage3.jsonl" && ! -f "$RECORDS" ]]; then
  "$EMOCALIBER_PYTHON" "$ROOT/data/build_mini.py" --output-dir "$MINI_DATA" --split train --n-train "$N_TRAIN"
fi
export IMAGE_ROOT="${IMAGE_ROOT:-$(dirname "$RECORDS")}"

# What the variables say, in the engine's words; further arguments go before them.
if [[ "$RL_ENGINE" == swift ]]; then
  given=(--seed "$SEED" --data_seed "$SEED" ${STEPS:+--max_steps "$STEPS"} ${LR:+--learning_rate "$LR"})
else
  given=("data.seed=$SEED" "actor_rollout_ref.rollout.seed=$SEED" "actor_rollout_ref.actor.data_loader_seed=$SEED"
    ${STEPS:+"trainer.total_training_steps=$STEPS"} ${LR:+"actor_rollout_ref.actor.optim.lr=$LR"})
fi
given+=("$@")
facts=(--stage 3 --base "$MODEL" --dataset "$RECORDS" --settings "$SETTINGS" --engine "$RL_ENGINE" --reward "$REWARD")
"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/begin.py" --output-dir "$OUTPUT_DIR" "${facts[@]}" -- "${given[@]}"

# The data, once: records in, verl's Parquet and ms-swift's chats out.
DATA="$OUTPUT_DIR/data"
limits=()
if [[ "$SIZE" != mini ]]; then limits=(--image-paths --min-pixels 200704 --max-pixels 451584); fi
build() { # RECORDS NAME [flags]
  "$EMOCALIBER_PYTHON" "$ROOT/data/build_rl_parquet.py" --records "$1" --image-root "$IMAGE_ROOT" \
    --output "$DATA/$2.parquet" --split "$2" --reuse "${limits[@]}" "${@:3}"
}
if [[ -f "$OUTPUT_DIR/final/config.json" ]]; then
  echo "$OUTPUT_DIR/final: already trained; remove $OUTPUT_DIR to train again"
else
  build "$RECORDS" train --chats "$DATA/train_chats.jsonl"
  if [[ "$RL_ENGINE" == swift ]]; then
    bash "$ROOT/train/rl/swift_grpo.sh" "$SETTINGS" "$MODEL" "$DATA/train_chats.jsonl" "$OUTPUT_DIR" "${given[@]}"
  else
    build "${VAL_RECORDS:-$RECORDS}" val --limit "$N_VAL" --seed "$SEED"
    bash "$ROOT/train/rl/verl_grpo.sh" "$SETTINGS" "$MODEL" "$DATA/train.parquet" "$DATA/val.parquet" "$OUTPUT_DIR" \
      "${given[@]}"
  fi
fi
# Also of a model that an interrupted start has left without it; of an older one nobody knows how it was made.
if [[ -f "$OUTPUT_DIR/run.json" && ! -f "$OUTPUT_DIR/final/README.md" ]]; then
  log="$(find "$OUTPUT_DIR" -maxdepth 1 -name 'metrics-*.jsonl' | sort | tail -n 1)" # of verl
  "$EMOCALIBER_PYTHON" "$ROOT/train/checkpoints/model_card.py" --model-dir "$OUTPUT_DIR/final" --log "${log:-$OUTPUT_DIR}" \
    "${facts[@]}" -- "${given[@]}"
fi
