#!/usr/bin/env bash
# Train on a Slurm cluster: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS in the environment shape the job. The processes get
# SIGUSR1 120 seconds before its time is over; REQUEUE=1 in a batch job queues it again when it was stopped.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...] $0 PARTITION JOB_NAME CONFIG [arguments of train.py]" >&2
    exit 2
fi
export SRUN_ARGS="--signal=USR1@120 ${SRUN_ARGS:-}"
exec "$(dirname "${BASH_SOURCE[0]}")/slurm_run.sh" train.py "$@"
