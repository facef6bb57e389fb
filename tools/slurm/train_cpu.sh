#!/bin/bash
# The same on nodes without GPUs: two processes of four cores on each of two nodes.
#   sbatch --partition=PARTITION tools/slurm/train_cpu.sh CONFIG [arguments of tools/train.py]
#SBATCH --job-name=mmmeta
#SBATCH --nodes=2 --ntasks-per-node=2 --cpus-per-task=4
#SBATCH --time=1-0
#SBATCH --signal=USR1@120
#SBATCH --requeue --open-mode=append
export GPUS=$((SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE)) GPUS_PER_NODE="$SLURM_NTASKS_PER_NODE"
export CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" REQUEUE=1 GRES=none
exec tools/slurm_train.sh "$SLURM_JOB_PARTITION" "$SLURM_JOB_NAME" "$@" --resume
