#!/usr/bin/env bash
# One run of ms-swift: swift_run.sh sft|rlhf SETTINGS MODEL DATASET OUTPUT_DIR [further flags]
# On the GPUs that are asked for or on the CPU; goes on from the last checkpoint of an interrupted run. Leaves
# checkpoints and logs in OUTPUT_DIR and the finished model, alone, in OUTPUT_DIR/final.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi
source "$ROOT/setup_env.sh"
if (($# < 5)); then
  echo "error: usage: swift_run.sh sft|rlhf SETTINGS MODEL DATASET OUTPUT_DIR [flags of swift]" >&2
  exit 2
fi
KIND="$1" SETTINGS="$2" MODEL="$3" DATASET="$4" OUTPUT_DIR="$5"
shift 5

flags=()
if nvidia-smi -L >/dev/null 2>&1; then
  # Always through torchrun, on as many GPUs as asked for: with more of them in sight and no launcher, ms-swift would
  # spread one model over all.
  export NPROC_PER_NODE="${N_GPU:-1}"
  export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((NPROC_PER_NODE - 1)))}"
else
  flags+=(--use_cpu true)
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" OMP_WAIT_POLICY=passive
  # glibc keeps what a step has freed for the next one: giving it back to the kernel and taking it anew, zeroed, is a
  # fifth of the time of a step of GRPO.
  export MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TOP_PAD_=268435456
fi
export TOKENIZERS_PARALLELISM=false

cd "$ROOT"
mkdir -p "$OUTPUT_DIR"
# The trainer writes its state last, so a checkpoint with it is whole.
last="$(find "$OUTPUT_DIR" -mindepth 2 -maxdepth 2 -path '*/checkpoint-*/trainer_state.json' -printf '%h\n' |
  sort -V | tail -n 1)"
if [[ -n "$last" ]]; then flags+=(--resume_from_checkpoint "$last"); fi
# --strict: a row that cannot be encoded ends the run; ms-swift would train on another row in its place and say nothing.
# --check_model: it asks ModelScope whether the local model is the newest, which tells it of the run and, without a
# network, takes a quarter of a minute.
"$EMOCALIBER_PYTHON" -m swift.cli.main "$KIND" "$SETTINGS" \
  --model "$MODEL" --model_type qwen2_5_vl --template qwen2_5_vl \
  --dataset "$DATASET" --output_dir "$OUTPUT_DIR" --add_version false \
  --load_from_cache_file false --report_to none --strict true --check_model false \
  "${flags[@]}" "$@" 2>&1 | tee -a "$OUTPUT_DIR/train.log"
"$EMOCALIBER_PYTHON" "$ROOT/train/checkpoints/export.py" --engine swift --from "$OUTPUT_DIR" --to "$OUTPUT_DIR/final"
