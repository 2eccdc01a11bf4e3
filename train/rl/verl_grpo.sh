#!/usr/bin/env bash
# One run of verl's GRPO: verl_grpo.sh SETTINGS MODEL TRAIN.parquet VAL.parquet OUTPUT_DIR [overrides of verl's keys]
# Leaves checkpoints, train.log, rewards.jsonl (rollouts) and metrics-*.jsonl (steps; a file for each start) in
# OUTPUT_DIR and the finished model, alone, in OUTPUT_DIR/final.
# An interrupted run goes on from its last checkpoint. A run whose logs stand still for STALL_S seconds is ended.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi
REWARD="${REWARD:-brier}"  # a name in emocaliber/reward.py
N_GPU="${N_GPU:-1}"        # without a GPU: training processes
STALL_S="${STALL_S:-1800}" # longer than one step, than loading the model, and than a validation
RAY_CPUS="${RAY_CPUS:-}"   # logical CPUs for Ray's workers; empty: the machine's, without a GPU 16
source "$ROOT/setup_env.sh"
[[ -n "${EMOCALIBER_SUPERVISED:-}" ]] || exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"

if (($# < 5)); then
  echo "error: usage: verl_grpo.sh SETTINGS MODEL TRAIN.parquet VAL.parquet OUTPUT_DIR [key=value ...]" >&2
  exit 2
fi
SETTINGS="$(realpath -m "$1")" MODEL="$2"
TRAIN="$(realpath -m "$3")" VAL="$(realpath -m "$4")" OUTPUT_DIR="$(realpath -m "$5")"
shift 5
if [[ -d "$MODEL" ]]; then
  MODEL="$(realpath "$MODEL")"
  export HF_HUB_OFFLINE=1 # everything is there
fi
if [[ -f "$OUTPUT_DIR/final/config.json" ]]; then
  echo "$OUTPUT_DIR/final: already trained; remove $OUTPUT_DIR to train again"
  exit 0
fi

"$EMOCALIBER_PYTHON" "$ROOT/train/preflight/variables.py"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false HYDRA_FULL_ERROR=1
# verl's file logger begins its file anew, also when the run goes on.
VERL_FILE_LOGGER_PATH="$OUTPUT_DIR/metrics-$(date -u +%Y%m%dT%H%M%SZ).jsonl"
export VERL_FILE_LOGGER_PATH
export RAY_USAGE_STATS_ENABLED=0 HF_DATASETS_CACHE="${HF_DATASETS_CACHE:-$OUTPUT_DIR/datasets}"
export RAY_enable_worker_prestart=0 RAY_prestart_worker_first_driver=0 # each would import torch for nothing
keys=(
  "actor_rollout_ref.model.path='$MODEL'" "data.train_files='$TRAIN'" "data.val_files='$VAL'"
  "reward.custom_reward_function.path='$ROOT/train/rl/verl_reward.py'"
  "++reward.custom_reward_function.reward_kwargs.reward=$REWARD"
  "++reward.custom_reward_function.reward_kwargs.log='$OUTPUT_DIR/rewards.jsonl'"
  "trainer.n_gpus_per_node=$N_GPU" "trainer.default_local_dir='$OUTPUT_DIR'"
  "+ray_kwargs.ray_init.include_dashboard=false"
)
if ! nvidia-smi -L >/dev/null 2>&1; then
  # Ray places workers by logical resources; the two cores are shared by whoever has something to do.
  RAY_CPUS="${RAY_CPUS:-16}"
  export VERL_USE_EXTERNAL_MODULES=train.rl.verl_cpu VERL_PLATFORM=cpu OMP_WAIT_POLICY=passive
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
  export RAY_worker_niceness="${RAY_worker_niceness:-0}" # not behind whatever else runs on the cores
  unset RAY_ADDRESS
  keys+=(
    trainer.device=cpu actor_rollout_ref.actor.strategy=fsdp2 # fsdp wants an accelerator
    actor_rollout_ref.rollout.name=transformers_cpu
    actor_rollout_ref.rollout.dtype=float32 actor_rollout_ref.rollout.free_cache_engine=false
    "+ray_kwargs.ray_init.num_gpus=$N_GPU"
  )
fi
if [[ -n "$RAY_CPUS" ]]; then keys+=("ray_kwargs.ray_init.num_cpus=$RAY_CPUS"); fi
keys+=("$@")
config=(--config-path "$(dirname "$SETTINGS")" --config-name "$(basename "$SETTINGS" .yaml)")

cd "$ROOT"
mkdir -p "$OUTPUT_DIR"
"$EMOCALIBER_PYTHON" "$ROOT/train/rl/check_inputs.py" --settings "$SETTINGS" -- "${keys[@]}"
LOG="$OUTPUT_DIR/train.log"
touch "$LOG"
# A folder of its own, with a short name (Ray's sockets lie in it), so that no other Ray is met, and none is left.
RAY_TMPDIR="$(mktemp -d /tmp/ray-XXXXXX)"
export RAY_TMPDIR
trainer=

finish() {
  if [[ -n "$trainer" ]] && kill -0 "$trainer" 2>/dev/null; then
    kill -TERM -- "-$trainer" 2>/dev/null || true
    for _ in {1..20}; do
      kill -0 "$trainer" 2>/dev/null || break
      sleep 0.5
    done
    kill -KILL -- "-$trainer" 2>/dev/null || true
  fi
  # Ray's daemons and workers lie in process groups of their own, but know the folder that is only theirs.
  local environ
  for environ in /proc/[0-9]*/environ; do
    if grep -qz "^RAY_TMPDIR=$RAY_TMPDIR\$" "$environ" 2>/dev/null; then
      kill -KILL "$(basename "$(dirname "$environ")")" 2>/dev/null || true
    fi
  done
  rm -rf "$RAY_TMPDIR"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

setsid "$EMOCALIBER_PYTHON" -m verl.trainer.main_ppo "${config[@]}" "${keys[@]}" > >(env -u RAY_TMPDIR tee -a "$LOG") 2>&1 &
trainer=$!
while kill -0 "$trainer" 2>/dev/null; do
  sleep 1
  newest="$({ stat -c %Y "$LOG" "$OUTPUT_DIR/rewards.jsonl" 2>/dev/null || true; } | sort -n | tail -n 1)"
  if (($(date +%s) - newest > STALL_S)); then
    echo "error: no output and no rollout for $STALL_S s: ended; see $LOG, and STALL_S for slower steps" >&2
    exit 1
  fi
done
status=0
wait "$trainer" || status=$?
trainer=
if ((status != 0)); then
  echo "error: verl ended with status $status; see $LOG; run the same command again to go on" >&2
  exit 1
fi
"$EMOCALIBER_PYTHON" "$ROOT/train/checkpoints/export.py" --engine verl --from "$OUTPUT_DIR" --to "$OUTPUT_DIR/final"
