#!/usr/bin/env bash
# The claim of the paper on EmoCaliber-mini: all three stages from nothing, evaluated after each, for every seed, and the
# rewards against each other at equal budget.
#   bash train/reproduce_mini.sh
#   SEEDS=0 REWARDS=log_clipped bash train/reproduce_mini.sh     one seed, one reward
#   DRY_RUN=1 bash train/reproduce_mini.sh                       prints the commands of all parts and runs none
# Writes the tables of train/RESULTS.md and images/stage_evolution.png after each seed. It can be interrupted: the same
# command goes on, and what is done is not done again. To do a part again, remove its folder and those of what was made
# from it. Without a GPU N_JOBS seeds run side by side, each on its share of the cores, as a model this small does not fill
# two; each needs 4 GB of memory. Every setting below can be given as an environment variable.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi

SEEDS="${SEEDS:-0 1 2}"
REWARDS="${REWARDS:-log_clipped brier emocaliber rlcr}" # the first is the one that the others are compared with
RL_ENGINE="${RL_ENGINE:-swift}"                         # on two cores verl's steps take longer
OUTPUT_ROOT="$(realpath -m "${OUTPUT_ROOT:-$ROOT/train/output/reproduce}")"
MINI_DATA="$(realpath -m "${MINI_DATA:-$ROOT/data/VECBench-mini}")"
TEST_DATA="$(realpath -m "${TEST_DATA:-$ROOT/data/VECBench-mini-large}")"
N_TRAIN="${N_TRAIN:-16000}"
N_TEST="${N_TEST:-500}"          # rows of each of the nine tasks,
N_TEST_VSA="${N_TEST_VSA:-4000}" # but of FI-2 and WebEmo-2: what can be gained there shows in many rows only
README="${README:-$ROOT/train/RESULTS.md}"
FIGURE="${FIGURE:-$ROOT/images/stage_evolution.png}"
DRY_RUN="${DRY_RUN:-}"
N_JOBS="${N_JOBS:-}"   # as many as there are cores, but one on a GPU
DRAWS="${DRAWS:-2000}" # of the bootstrap
# What may be set for one stage is not for all of them. STEPS and LR reach stage 3, the same for every reward.
unset MODEL DATASET SETTINGS OUTPUT_DIR SEED REWARD RECORDS VAL_RECORDS
export SIZE=mini RL_ENGINE MINI_DATA N_TRAIN

source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"
if (($#)); then
  echo "error: $1: takes no arguments; see the variables at its head" >&2
  exit 2
fi
given=("N_JOBS=$N_JOBS" "DRAWS=$DRAWS" "N_TEST=$N_TEST" "N_TEST_VSA=$N_TEST_VSA") seeds=()
for seed in $SEEDS; do given+=("SEED=$seed") seeds+=("$seed"); done
for reward in $REWARDS; do given+=("REWARD=$reward"); done
"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/variables.py" "${given[@]}"
if [[ -z "${seeds[*]}" || -n "$(printf '%s\n' "${seeds[@]}" | sort | uniq -d)" ]]; then
  echo "error: SEEDS=$SEEDS: give different seeds, at least one" >&2
  exit 2
fi
cores=()
for core in $("$EMOCALIBER_PYTHON" -I -c 'import os; print(*sorted(os.sched_getaffinity(0)))'); do cores+=("$core"); done
if nvidia-smi -L >/dev/null 2>&1; then
  if ((${N_JOBS:-1} > 1)); then
    echo "error: N_JOBS=$N_JOBS: on a GPU seeds run one after another; leave it out" >&2
    exit 2
  fi
  N_JOBS=1
fi
[[ -z "$DRY_RUN" ]] || N_JOBS=1
N_JOBS="${N_JOBS:-${#cores[@]}}"
((N_JOBS <= ${#seeds[@]})) || N_JOBS="${#seeds[@]}"

# What decides the results, as at the first start: a part that is there is taken as made with the same.
decided() ( # with a folder of its own, as README and FIGURE may be relative
  for name in RL_ENGINE N_TRAIN N_TEST N_TEST_VSA WARMUP_STEPS N_SAMPLED_ROWS N_SAMPLES STEPS LR; do
    echo "$name=${!name:-}"
  done
  cd "$ROOT/train/settings" && sha256sum warmup_mini.yaml stage{1,2}_mini.yaml stage3_mini*.yaml
)
if [[ -z "$DRY_RUN" ]]; then
  mkdir -p "$OUTPUT_ROOT"
  exec 9>"$OUTPUT_ROOT/.lock"
  if ! flock -n 9; then
    echo "error: $OUTPUT_ROOT: another reproduction writes there; wait, end it, or give another OUTPUT_ROOT" >&2
    exit 2
  fi
  if [[ ! -f "$OUTPUT_ROOT/run.txt" && -d "$OUTPUT_ROOT/logs" && "${RESUME_UNKNOWN:-}" != 1 ]]; then
    echo "error: $OUTPUT_ROOT holds results and no run.txt that says with what they were made; give another" \
      "OUTPUT_ROOT, or RESUME_UNKNOWN=1 if they are of these very settings" >&2
    exit 2
  fi
  [[ -f "$OUTPUT_ROOT/run.txt" ]] || decided >"$OUTPUT_ROOT/run.txt"
  if ! differences="$(diff "$OUTPUT_ROOT/run.txt" <(decided))"; then
    differences="$(sed -n 's/^< /then /p; s/^> /now /p' <<<"$differences" | paste -sd,)"
    echo "error: $OUTPUT_ROOT was begun otherwise, $differences; give the same, or another OUTPUT_ROOT" >&2
    exit 2
  fi
fi

# Runs a command with its output in a log, unless the file that it leaves at its end is there. Where the user stops it
# there is nothing to say.
part() { # TITLE FILE COMMAND...
  local title=$1 file=$2 start=$SECONDS log status=0
  log="${title//, /-}"
  log="$OUTPUT_ROOT/logs/${log// /_}.log"
  shift 2
  if [[ -n "$DRY_RUN" ]]; then
    echo "$title:$(printf ' %q' "$@")"
  elif [[ -f "$file" ]]; then
    echo "$title: is there"
  else
    mkdir -p "${log%/*}"
    "$@" >>"$log" 2>&1 || status=$?
    if ((status == 0)); then
      echo "$title: $((SECONDS - start)) s"
    elif ((status != 129 && status != 130 && status != 143)); then
      echo "error: $title failed after $((SECONDS - start)) s; see $log; what does not need it is done, then start" \
        "this script again" >&2
    fi
    ((status == 0)) || exit "$status"
  fi
}

answers_of() { # SEED NAME
  echo "$OUTPUT_ROOT/seed$1/evaluation/$2/predictions.jsonl"
}

infer() { # SEED NAME CHECKPOINT DATA
  local file
  file="$(answers_of "$1" "$2")"
  part "seed $1, answers of $2" "$file" "$EMOCALIBER_PYTHON" "$ROOT/inference/infer.py" \
    --checkpoint "$OUTPUT_ROOT/seed$1/$3/final" --data "$4" --output-dir "${file%/*}" --temperature 0.7 --seed 0 \
    --max-new-tokens 256 --min-pixels 3136 --max-pixels 12544 --batch-size 256
}

run_seed() { # SEED
  local seed=$1 folder="$OUTPUT_ROOT/seed$1" reward
  local of_seed=(env "SEED=$seed" "OUTPUT_ROOT=$folder" "IMAGE_ROOT=$MINI_DATA")
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
}

# Starts a seed on every N_JOBS-th core of this process, seeds that run at once on different ones.
start_seed() { # PLACE
  local of_job="" k
  for ((k = $1 % N_JOBS % ${#cores[@]}; k < ${#cores[@]}; k += N_JOBS)); do of_job+="${of_job:+,}${cores[k]}"; done
  (
    taskset -cp "$of_job" "$BASHPID" >/dev/null
    run_seed "${seeds[$1]}"
  ) &
  jobs[$1]=$!
}

part "training data" "" "$EMOCALIBER_PYTHON" "$ROOT/data/build_mini.py" \
  --output-dir "$MINI_DATA" --split train --n-train "$N_TRAIN"
part "test data" "" "$EMOCALIBER_PYTHON" "$ROOT/data/build_mini.py" \
  --output-dir "$TEST_DATA" --n-test "$N_TEST" --test-rows "FI-2=$N_TEST_VSA" "WebEmo-2=$N_TEST_VSA" \
  --seed 1 --without-confidence

runs=() jobs=() started=0 failed=""
for place in "${!seeds[@]}"; do
  while ((started < ${#seeds[@]} && started < place + N_JOBS)); do start_seed $((started++)); done
  if ! wait "${jobs[place]}"; then
    failed=1
    continue
  fi
  seed="${seeds[place]}"
  names=(stage1 stage2 stage2_held_out)
  for reward in $REWARDS; do names+=("stage3_$reward"); done
  for name in "${names[@]}"; do runs+=("$seed/$name=$(answers_of "$seed" "$name")"); done
  (part "tables after seed $seed" "" "$EMOCALIBER_PYTHON" "$ROOT/train/compare_stages.py" "${runs[@]}" \
    --scenes "$TEST_DATA/test_scenes.jsonl" --output-dir "$OUTPUT_ROOT/comparison" --readme "$README" \
    --figure "$FIGURE" --draws "$DRAWS") || failed=1
done
[[ -z "$failed" ]] || exit 1
[[ -n "$DRY_RUN" ]] || cat "$OUTPUT_ROOT/comparison/verdicts.txt"
