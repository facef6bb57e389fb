#!/bin/bash
# Evaluate a checkpoint, from the root of the checkout:
#   sbatch --partition=PARTITION tools/slurm/test.sh CONFIG CHECKPOINT [arguments of tools/test.py]
#SBATCH --job-name=mmmeta-test
#SBATCH --nodes=1 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=5
#SBATCH --time=2:00:00
export GPUS=$((SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE)) GPUS_PER_NODE="$SLURM_NTASKS_PER_NODE"
export CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
exec tools/slurm_test.sh "$SLURM_JOB_PARTITION" "$SLURM_JOB_NAME" "$@"
