#!/bin/bash
# The paper on several nodes of a SLURM cluster:   sbatch --nodes=4 --gpus-per-node=8 tools/slurm.sh SCALE=full RUN=paper
# What follows the script's name goes to `make paper` (knobs by KNOBS="step2.shard=fsdp" before sbatch, not by P). One job: training stages use all GPUs of all nodes, the others the first node.
# All nodes must see this folder under the same path.
#SBATCH --job-name=expblip
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=outputs/slurm-%j.log
# --ntasks-per-node=1: one torchrun a node, and torchrun starts one process a GPU.
# --requeue: a job that is pre-empted starts again, with the same command. Finished stages are not run again, and a training
#            goes on after its last checkpoint (`save_every`); outputs/ must not be on a disk of one node.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

GPUS=${GPUS:-${SLURM_GPUS_ON_NODE:-1}}  # processes a node
NODES=$SLURM_JOB_NUM_NODES
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)  # the processes meet at the first node
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))  # two jobs on one node do not meet
export MASTER_ADDR MASTER_PORT
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1  # nodes rarely reach the internet: download before

# A training stage starts this, followed by `-m expblip.launch <notebook> <parameters>` (page Many GPUs). make puts .venv/bin on PATH.
EXPBLIP_LAUNCHER="srun --nodes=$NODES --ntasks=$NODES --ntasks-per-node=1 --kill-on-bad-exit=1 torchrun"
EXPBLIP_LAUNCHER+=" --nnodes=$NODES --nproc-per-node=$GPUS --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID --rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT"
export EXPBLIP_LAUNCHER

ALL=$((NODES * GPUS))
BATCH=${BATCH:-$(((31 + ALL) / ALL * ALL))}  # of both steps: the least from 32 on that all processes can share evenly (the paper's are 28 and 32)
exec make paper P="step1.batch=$BATCH step1.processes=$ALL step2.batch=$BATCH step2.processes=$ALL ${KNOBS:-}" "$@"  # KNOBS: further knobs, such as step2.shard=fsdp
