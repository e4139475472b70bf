#!/usr/bin/env bash
# Tables A.10 and A.15 on a GPU, at full length, on the first batch of CIFAR-10: one network a row.
#
#     benchmarks/paper/gpu.sh DATA OUT [OPTION...]
#
# A call takes less than nine minutes and resumes the last one; the call that prints both tables is
# the last. Options are passed on to `ncut paper run`: `--runs 5`, or for a trial on a CPU
# `--device cpu --images 64 --epochs-scale 0.01 --shuffles 2`.
set -euo pipefail
data=$1 out=$2
shift 2
status=0
timeout --kill-after=10 "${SECONDS_A_CALL:-500}" ncut paper run A.10 A.15 \
    --images 10000 --runs 1 --precision bfloat16 --device cuda --jobs 5 --no-figures \
    --data "$data" --out "$out" "$@" || status=$?
if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "stopped; call it again to go on" >&2
    exit 0
fi
exit "$status"
