#!/usr/bin/env bash
# Measures this machine's GPU: bench/gpu.sh [--tiny] FOLDER [PART…]
#
# Parts, in this order, each cut off after 90 seconds (LMFT_BENCH_SECONDS; 900 with --tiny):
#   smoke            the quickstart end to end, in BF16; the peaks table and the name that nvidia-smi gives
#   equality         the losses of every switch, and of BF16, beside those of the plain loop
#   gpt2-124m        124M, 16 x 1,024: ours, and run_clm's defaults; -fast and -bare: the compiled peers
#   lora             LoRA of 1.1B on conversations of varied length, beside TRL's SFTTrainer with packing
#   llama-1.1b       1.1B, 4 x 2,048: as gpt2-124m
#   memory           estimates against what is allocated, on ten shapes
#   evaluation       what evaluating takes against training, with a vocabulary of 128k
#   faults           no GPU, SIGTERM and resume; shortage: memory that runs out
#   tutorial         124M, 8 x 128: ours, ours before, run_clm's defaults
#   checkpoint       training with a checkpoint every 100 steps to S3 on this machine, against none
#   start            from the start of the process to the first step, against a bare script
#   tutorials        the three tutorials' manifests end to end, with random weights
#   graphs           what CUDA graphs would gain for tiny steps
#   varlen           documents that do not see each other: masks, and attention within each
# FOLDER/lines.jsonl gets a JSON line for each figure as soon as it is known, with its goal and whether it was met, and
# for each part a line that says what was not measured, and why; LMFT_BENCH_TOTAL is the seconds after which no more
# parts begin. FOLDER/log.txt has what the parts say beside it; the table at the end is in FOLDER/table.md too
# (bench/gpu/summary.py FILE… makes it of lines kept earlier). Parts called later into the same FOLDER add to its lines.
#
# No network is used. PYTHON names the interpreter; without the package installed, the sources beside this script are
# taken. Peers that are not installed are named: TRL is looked for in the folder LMFT_BENCH_TRL too, and for S3 there is
# versitygw (LMFT_VERSITYGW) or moto. --tiny shows on a machine without a GPU that every part runs; its speeds say nothing.
set -uo pipefail
all=(
  smoke equality gpt2-124m gpt2-124m-fast gpt2-124m-bare lora llama-1.1b llama-1.1b-fast llama-1.1b-bare
  memory evaluation faults shortage tutorial checkpoint start tutorials graphs varlen
)
top=$(cd "$(dirname "$0")/.." && pwd)
tiny=() limit=90; [ "${1:-}" = --tiny ] && { tiny=(--tiny) limit=900; shift; }
folder=${1:?usage: bench/gpu.sh [--tiny] FOLDER [PART…]}; shift
[ $# -gt 0 ] || set -- "${all[@]}"
for part in "$@"; do
  [[ " ${all[*]} " == *" $part "* ]] || { echo "bench/gpu.sh: there is no part $part; there are: ${all[*]}" >&2; exit 2; }
done
mkdir -p "$folder"; folder=$(cd "$folder" && pwd)
export LMFT_BENCH_LINES=$folder/lines.jsonl LMFT_BENCH_SECONDS=${LMFT_BENCH_SECONDS:-$limit}
export PYTHONPATH=$top/api:$top/jobimage:$top/tests${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
[ ${#tiny[@]} = 0 ] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # threads cost tiny tensors more than they gain
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true DISABLE_KUBEFLOW_INTEGRATION=TRUE
# Not in FOLDER: some ways of fetching it back take a few files only.
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-${TMPDIR:-/tmp}/lmft-bench-inductor}
python=${PYTHON:-python3}

mark() { # part further-fields
  printf '{"part": "%s", %s}\n' "$1" "$2" | tee -a "$LMFT_BENCH_LINES"
}

machine=$("$python" "$top/bench/gpu/machine.py" "${tiny[@]}") || {
  echo "bench/gpu.sh: $python lacks what training needs, see above; PYTHON names another interpreter" >&2
  exit 1
}
tee -a "$LMFT_BENCH_LINES" <<<"$machine"
if [ ${#tiny[@]} = 0 ] && ! grep -q '"memory_gib": [0-9]' <<<"$machine"; then
  echo "bench/gpu.sh: torch sees no GPU here; with --tiny every part shows that it runs, on the CPU" >&2
  exit 1
fi
for part in "$@"; do mark "$part" '"not_measured": "not reached"'; done >/dev/null  # true even if this script is killed
failed=0
for part in "$@"; do
  if [ $SECONDS -ge "${LMFT_BENCH_TOTAL:-1000000}" ]; then
    mark "$part" "\"not_measured\": \"not begun: $SECONDS of $LMFT_BENCH_TOTAL seconds were used\""; failed=1
    continue
  fi
  case $part in
    gpt2-124m*|llama-1.1b*|tutorial) command=("$top/bench/gpu/loops.py" "$part") ;;
    *) command=("$top/bench/gpu/$part.py") ;;
  esac
  mark "$part" '"not_measured": "the bench ended in the middle of it"' >/dev/null
  echo "== $part" >>"$folder/log.txt"
  began=$SECONDS; LMFT_BENCH_BEGAN=$(date +%s.%N); export LMFT_BENCH_BEGAN
  timeout --signal=TERM --kill-after=5 "$LMFT_BENCH_SECONDS" "$python" "${command[@]}" "${tiny[@]}" \
    2>>"$folder/log.txt" | tee -a "$LMFT_BENCH_LINES"
  code=${PIPESTATUS[0]} seconds=$((SECONDS - began))
  case $code in
    0) why= ;;
    124|137) why=", \"not_measured\": \"cut off after $LMFT_BENCH_SECONDS s\"" ;;
    *) why=", \"not_measured\": \"failed: exit $code, see log.txt\"" ;;
  esac
  [ "$code" = 0 ] || failed=1
  mark "$part" "\"exit\": $code, \"seconds\": $seconds$why"
done
"$python" "$top/bench/gpu/summary.py" "$LMFT_BENCH_LINES" | tee "$folder/table.md"
exit $failed
