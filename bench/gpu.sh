#!/usr/bin/env bash
# Measures this machine's GPU: bench/gpu.sh FOLDER [PART…]
#
# Parts, in this order, each cut off after 90 seconds (LMFT_BENCH_SECONDS):
#   smoke gpt2-124m tutorial llama-1.1b faults
# Each writes FOLDER/<part>.jsonl, a JSON line for each figure as soon as it is known; a part that was cut off or left out
# says so in FOLDER/parts.jsonl. No network is used. PYTHON names the interpreter; without the package installed, the
# sources beside this script are taken.
set -uo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:?usage: bench/gpu.sh FOLDER [PART…]}; shift
[ $# -gt 0 ] || set -- smoke gpt2-124m tutorial llama-1.1b faults
export PYTHONPATH=$top/api:$top/jobimage${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true DISABLE_KUBEFLOW_INTEGRATION=TRUE
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$folder/inductor}
python=${PYTHON:-python3}
mkdir -p "$folder"

"$python" "$top/bench/gpu/machine.py" | tee "$folder/machine.jsonl"
for part in "$@"; do
  case $part in
    smoke|faults) command=("$top/bench/gpu/$part.py") ;;
    *) command=("$top/bench/gpu/loops.py" "$part") ;;
  esac
  began=$SECONDS
  timeout --signal=TERM --kill-after=5 "${LMFT_BENCH_SECONDS:-90}" "$python" "${command[@]}" \
    > >(tee "$folder/$part.jsonl") 2> "$folder/$part.log"
  code=$?
  printf '{"part": "%s", "exit": %d, "seconds": %d, "cut_off": %s}\n' "$part" $code $((SECONDS - began)) \
    "$([ $code = 124 ] && echo true || echo false)" | tee -a "$folder/parts.jsonl"
done
