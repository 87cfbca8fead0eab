#!/usr/bin/env bash
# The paper's ablation in miniature: eleven rows, three training seeds. Run it again to go on.
#   runs/ablation-tiny.sh [--fraction F] [--seconds BUDGET] [--commit]     pilots, on val; 0.15 is
#                                    some 20 minutes on two cores (estimated from the rows' times)
#   runs/ablation-tiny.sh --split test [--seconds BUDGET] --commit         the reported run
#   runs/ablation-tiny.sh table|plan [--split SPLIT] [--fraction F]
# Data, adapters and videos go to out/ablation, one small file a row and seed to
# experiments/ablation/results. WORKERS processes (2) share the rows, each with its part of the cores;
# on a GPU: WORKERS=1.
set -euo pipefail
case ${1:-} in
    run) ;;
    table | plan) WORKERS=1 ;;
    *) set -- run "$@" ;;
esac
workers=${WORKERS:-2}
threads=$(($(nproc) / workers))
export HF_HUB_OFFLINE=1 PYTHONPATH=experiments
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
# glibc gives large blocks back and asks for them again, page by page: 15 % of the CPU time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456

pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM
for ((i = 0; i < workers; i++)); do
    .venv/bin/python -m ablation "$@" &
    pids+=($!)
done
code=0
for pid in "${pids[@]}"; do
    wait "$pid" || code=$?
done
wait
exit $code
