#!/bin/bash
# lockstepd on all nodes of a Slurm job, started by srun through PMIx: sbatch slurm-srun.sh --model /models/m
# One task is one rank. Sizes given to sbatch (--nodes=4) win over those below; what follows the script's name goes to lockstepd.
#SBATCH --job-name=lockstep
#SBATCH --nodes=2 --ntasks-per-node=2 --cpus-per-task=16
# A minute before the time limit: drain.
#SBATCH --signal=B:USR1@60
set -eu
LOCKSTEP_GROUP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export LOCKSTEP_GROUP_SECRET
# exec: signals to the job's script are then srun's, which passes them on to every rank. The cores of a task are named again, as srun does not take them over
# from the job. A rank that is lost must not have the others killed before they have told their clients.
exec srun --mpi=pmix --cpus-per-task="$SLURM_CPUS_PER_TASK" --cpu-bind=cores --kill-on-bad-exit=0 lockstepd --host 0.0.0.0 "$@"
