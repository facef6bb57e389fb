#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share: slurm_run.sh TOOL PARTITION JOB_NAME [arguments of the tool]
set -euo pipefail
tool="$1" partition="$2" job="$3"
shift 3
gpus="${GPUS:-8}"
per_node="${GPUS_PER_NODE:-8}"
if [ "$gpus" -lt "$per_node" ]; then per_node="$gpus"; fi
if ! command -v srun >/dev/null; then
    echo "error: srun is not on PATH: run this on a machine of a Slurm cluster, or use tools/dist_${tool%.py}.sh" >&2
    exit 1
fi
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
# A signal is for the processes, which write a checkpoint: this script waits for them.
trap : TERM USR1
status=0
# SRUN_ARGS is split into words on purpose: it holds several options.
# shellcheck disable=SC2086
srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "$python" -u "$root/tools/$tool" "$@" --launcher=slurm || status=$?
# 138 and 143: stopped by SIGUSR1 and SIGTERM, with a checkpoint.
if [ "${REQUEUE:-0}" = 1 ] && [ -n "${SLURM_JOB_ID:-}" ] && { [ $status = 138 ] || [ $status = 143 ]; }; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
