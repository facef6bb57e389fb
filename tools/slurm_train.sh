#!/usr/bin/env bash
# Train on a Slurm cluster: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), GRES (gpu:GPUS_PER_NODE; none for nodes without GPUs) and SRUN_ARGS
# in the environment shape the job; REQUEUE=1 in a batch job, such as those in tools/slurm/, queues it again when a
# signal has stopped it. Started outside of one, the processes get SIGUSR1 120 seconds before the time is over.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 GRES=gpu:8 SRUN_ARGS=...] $0 PARTITION JOB_NAME CONFIG [arguments of train.py]" >&2
    exit 2
fi
# Inside a batch job srun ignores it: there it is for the batch script.
if [ -z "${SLURM_JOB_ID:-}" ]; then export SRUN_ARGS="--signal=USR1@120 ${SRUN_ARGS:-}"; fi
exec "$(dirname "${BASH_SOURCE[0]}")/slurm_run.sh" train.py "$@"
