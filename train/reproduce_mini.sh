#!/usr/bin/env bash
# The claim of the paper on EmoCaliber-mini: all three stages from nothing, evaluated after each, for every seed, and
# the rewards against each other at equal budget. Writes the tables of train/README.md and images/stage_evolution.png
# after each seed; extra arguments go to train/compare_stages.py. Interrupt it at will: the same command goes on, and
# what is done is not done again. To do a part again, remove its folder and those of what was made from it.
# DRY_RUN=1 prints the commands of all parts and runs none.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

SEEDS="${SEEDS:-0 1 2}"
REWARDS="${REWARDS:-log_clipped brier emocaliber rlcr}" # the first is the one that the others are compared with
RL_ENGINE="${RL_ENGINE:-swift}"                         # on two cores verl's steps take longer
OUTPUT_ROOT="$(realpath -m "${OUTPUT_ROOT:-$ROOT/train/output/reproduce}")"
MINI_DATA="$(realpath -m "${MINI_DATA:-$ROOT/data/VECBench-mini}")"
TEST_DATA="$(realpath -m "${TEST_DATA:-$ROOT/data/VECBench-mini-large}")"
N_TRAIN="${N_TRAIN:-16000}"
N_TEST="${N_TEST:-500}"          # rows of each of the nine tasks,
N_TEST_VSA="${N_TEST_VSA:-4000}" # but of FI-2 and WebEmo-2: what can be gained there shows in many rows only
README="${README:-$ROOT/train/README.md}"
FIGURE="${FIGURE:-$ROOT/images/stage_evolution.png}"
DRY_RUN="${DRY_RUN:-}"
# What may be set for one stage is not for all of them. STEPS and LR reach stage 3, the same for every reward.
unset MODEL DATASET SETTINGS OUTPUT_DIR SEED REWARD RECORDS VAL_RECORDS
export SIZE=mini RL_ENGINE MINI_DATA N_TRAIN

source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" -m emocaliber.supervise "$0" "$@"
given=()
for seed in $SEEDS; do given+=("SEED=$seed"); done
for reward in $REWARDS; do given+=("REWARD=$reward"); done
"$EMOCALIBER_PYTHON" "$ROOT/train/check_variables.py" "${given[@]}"

# Runs a command with its output in a log, unless the file that it leaves at its end is there.
part() { # TITLE FILE COMMAND...
  local title=$1 file=$2 start=$SECONDS log
  log="${title//, /-}"
  log="$OUTPUT_ROOT/logs/${log// /_}.log"
  shift 2
  if [[ -n "$DRY_RUN" ]]; then
    echo "$title:$(printf ' %q' "$@")"
  elif [[ -f "$file" ]]; then
    echo "$title: is there"
  elif mkdir -p "${log%/*}" && "$@" >>"$log" 2>&1; then
    echo "$title: $((SECONDS - start)) s"
  else
    echo "error: $title failed after $((SECONDS - start)) s; see $log, then start this script again to go on" >&2
    exit 1
  fi
}

infer() { # SEED NAME CHECKPOINT DATA
  local folder="$OUTPUT_ROOT/seed$1/evaluation/$2"
  part "seed $1, answers of $2" "$folder/predictions.jsonl" "$EMOCALIBER_PYTHON" "$ROOT/inference/infer.py" \
    --checkpoint "$OUTPUT_ROOT/seed$1/$3/final" --data "$4" --output-dir "$folder" --temperature 0.7 --seed 0 \
    --max-new-tokens 256 --min-pixels 3136 --max-pixels 12544 --batch-size 256
  runs+=("$1/$2=$folder/predictions.jsonl")
}

part "training data" "$MINI_DATA/manifest_train.json" "$EMOCALIBER_PYTHON" "$ROOT/data/build_mini.py" \
  --output-dir "$MINI_DATA" --split train --n-train "$N_TRAIN"
part "test data" "$TEST_DATA/manifest_test.json" "$EMOCALIBER_PYTHON" "$ROOT/data/build_mini.py" \
  --output-dir "$TEST_DATA" --n-test "$N_TEST" --test-rows "FI-2=$N_TEST_VSA" "WebEmo-2=$N_TEST_VSA" \
  --seed 1 --without-confidence

runs=()
for seed in $SEEDS; do
  folder="$OUTPUT_ROOT/seed$seed"
  of_seed=(env "SEED=$seed" "OUTPUT_ROOT=$folder" "IMAGE_ROOT=$MINI_DATA")
  part "seed $seed, stage 1" "$folder/stage1/final/README.md" "${of_seed[@]}" bash "$ROOT/train/step1_example.sh"
  infer "$seed" stage1 stage1 "$TEST_DATA/test_without_confidence.jsonl"
  part "seed $seed, stage 2" "$folder/stage2/final/README.md" "${of_seed[@]}" bash "$ROOT/train/step2_example.sh"
  infer "$seed" stage2 stage2 "$TEST_DATA/test.jsonl"
  infer "$seed" stage2_held_out stage2 "$MINI_DATA/train_stage3.jsonl"
  for reward in $REWARDS; do
    part "seed $seed, stage 3 with $reward" "$folder/stage3_$reward/final/README.md" \
      "${of_seed[@]}" "REWARD=$reward" "MODEL=$folder/stage2/final" "OUTPUT_DIR=$folder/stage3_$reward" \
      bash "$ROOT/train/step3_example.sh"
    infer "$seed" "stage3_$reward" "stage3_$reward" "$TEST_DATA/test.jsonl"
  done
  part "tables after seed $seed" "" "$EMOCALIBER_PYTHON" "$ROOT/train/compare_stages.py" "${runs[@]}" \
    --scenes "$TEST_DATA/test_scenes.jsonl" --output-dir "$OUTPUT_ROOT/comparison" --readme "$README" \
    --figure "$FIGURE" "$@"
done
[[ -n "$DRY_RUN" ]] || cat "$OUTPUT_ROOT/comparison/verdicts.txt"
