#!/bin/bash
# The pipeline as a Slurm job: sbatch deploy/slurm.sh, in a project or clone on a shared disk.
# finetune and synthesize run in a process per GPU of every node, all else on the first node.
#SBATCH --job-name=dermaflux
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
#SBATCH --signal=B:USR1@300
set -euo pipefail
set -m  # a command in the background is a process group, which one signal ends as a whole

cd "${SLURM_SUBMIT_DIR:-$PWD}"
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi
nodes=${SLURM_JOB_NUM_NODES:-1}
gpus=${SLURM_GPUS_ON_NODE:-1}
group=

# Checkpoints continue where a stage stopped, so ending it early loses seconds to minutes.
end() {
    trap '' TERM USR1
    if [ -n "$group" ]; then
        kill -TERM -- "-$group" 2>/dev/null || true
        while kill -0 -- "-$group" 2>/dev/null; do wait 2>/dev/null || true; sleep 0.2; done
    fi
}
# Pre-emption: Slurm puts a job with --requeue back into the queue itself, and scancel does not.
trap 'end; exit 143' TERM
# Five minutes before the time limit nobody else would.
trap 'end; scontrol requeue "$SLURM_JOB_ID"; exit 0' USR1

run() {
    "$@" &
    group=$!
    wait "$group"
    group=
}

# A stage in several processes, as `runtime.accelerate` starts them on one node; DVC records it.
launch() {
    if dvc status "$1" | grep -q 'up to date'; then return; fi
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    run srun --kill-on-bad-exit=1 bash -c "exec accelerate launch \
        --num_machines $nodes --machine_rank \$SLURM_NODEID --num_processes $((nodes * gpus)) \
        --main_process_ip $head --main_process_port 29500 --mixed_precision no \
        --dynamo_backend no $([ $((nodes * gpus)) -gt 1 ] && echo --multi_gpu) -m dermaflux $1"
    run dvc commit --force "$1"
}

run dvc repro validate backbone
launch finetune
run dvc repro selector
launch synthesize
run dvc repro
