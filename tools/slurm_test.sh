#!/usr/bin/env bash
# Evaluate on a Slurm cluster: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), GRES (gpu:GPUS_PER_NODE; none for nodes without GPUs) and SRUN_ARGS
# in the environment shape the job.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 GRES=gpu:8 SRUN_ARGS=...] $0 PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]" >&2
    exit 2
fi
exec "$(dirname "${BASH_SOURCE[0]}")/slurm_run.sh" test.py "$@"
