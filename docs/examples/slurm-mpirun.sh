#!/bin/bash
# lockstepd on all nodes of a Slurm job, started by lockstep-run: sbatch slurm-mpirun.sh --model /models/m
# For a Slurm without PMIx. Open MPI's own daemons come to the other nodes by srun, so no ssh is needed.
# One task is one rank. Sizes given to sbatch (--nodes=4) win over those below; what follows the script's name goes to lockstepd.
#SBATCH --job-name=lockstep
#SBATCH --nodes=2 --ntasks-per-node=2 --cpus-per-task=16
# A minute before the time limit: drain.
#SBATCH --signal=B:USR1@60
set -eu
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/:$SLURM_NTASKS_PER_NODE/" | paste -sd,)
# exec: signals to the job's script are then lockstep-run's, which drains.
exec lockstep-run -n "$SLURM_NTASKS" --host "$hosts" --map-by "slot:PE=$SLURM_CPUS_PER_TASK" --bind-to core -- lockstepd --host 0.0.0.0 "$@"
