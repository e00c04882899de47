#!/usr/bin/env bash
# Measures this machine's GPU: bench/gpu.sh [--tiny] FOLDER [PART…]
#
# Parts, in this order, each cut off after 90 seconds (LMFT_BENCH_SECONDS):
#   smoke       the quickstart end to end: BF16, FP32 and the CPU beside them
#   tutorials   the three tutorials' manifests end to end, with random weights
#   gpt2-124m tutorial llama-1.1b   training loops beside their peers
#   graphs      what CUDA graphs would gain for tiny steps
#   memory      estimates against what is allocated, on ten shapes
#   faults      no GPU, SIGTERM and resume, memory that runs out
# Each writes FOLDER/<part>.jsonl, a JSON line for each figure as soon as it is known; a part that was cut off or left out
# says so in FOLDER/parts.jsonl. No network is used. PYTHON names the interpreter; without the package installed, the
# sources beside this script are taken. --tiny shows on a machine without a GPU that every part runs; its figures say
# nothing.
set -uo pipefail
all=(smoke tutorials gpt2-124m tutorial llama-1.1b graphs memory faults)
top=$(cd "$(dirname "$0")/.." && pwd)
tiny=(); [ "${1:-}" = --tiny ] && { tiny=(--tiny); shift; }
folder=${1:?usage: bench/gpu.sh [--tiny] FOLDER [PART…]}; shift
[ $# -gt 0 ] || set -- "${all[@]}"
export PYTHONPATH=$top/api:$top/jobimage${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true DISABLE_KUBEFLOW_INTEGRATION=TRUE
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$folder/inductor}
python=${PYTHON:-python3}
mkdir -p "$folder"

"$python" "$top/bench/gpu/machine.py" | tee "$folder/machine.jsonl"
if [ ${#tiny[@]} = 0 ] && ! grep -q '"memory_gib": [0-9]' "$folder/machine.jsonl"; then
  echo "bench/gpu.sh: torch sees no GPU here; with --tiny every part shows that it runs, on the CPU" >&2
  exit 1
fi
for part in "$@"; do
  case $part in
    smoke|tutorials|faults|graphs|memory) command=("$top/bench/gpu/$part.py") ;;
    *) command=("$top/bench/gpu/loops.py" "$part") ;;
  esac
  began=$SECONDS
  timeout --signal=TERM --kill-after=5 "${LMFT_BENCH_SECONDS:-90}" "$python" "${command[@]}" "${tiny[@]}" \
    > >(tee "$folder/$part.jsonl") 2> "$folder/$part.log"
  code=$?
  printf '{"part": "%s", "exit": %d, "seconds": %d, "cut_off": %s}\n' "$part" $code $((SECONDS - began)) \
    "$([ $code = 124 ] && echo true || echo false)" | tee -a "$folder/parts.jsonl"
done
