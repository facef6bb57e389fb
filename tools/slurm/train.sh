#!/bin/bash
# A training that goes on after its time limit or a preemption, from the root of the checkout:
#   sbatch --partition=PARTITION [--nodes=2 --time=2-0 ...] tools/slurm/train.sh CONFIG [arguments of tools/train.py]
#SBATCH --job-name=mmmeta
#SBATCH --nodes=1 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=5
#SBATCH --time=1-0
#SBATCH --signal=USR1@120
#SBATCH --requeue --open-mode=append
export GPUS=$((SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE)) GPUS_PER_NODE="$SLURM_NTASKS_PER_NODE"
export CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" REQUEUE=1
exec tools/slurm_train.sh "$SLURM_JOB_PARTITION" "$SLURM_JOB_NAME" "$@" --resume
