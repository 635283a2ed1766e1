#!/usr/bin/env bash
# Starts the ranks of a group over several pods. A worker runs sshd as the pod's user; the leader waits for the workers' sshd and becomes lockstep-run.
# The pods come from a LeaderWorkerSet (LWS_LEADER_ADDRESS) or an MPIJob (/etc/mpi/hostfile).
set -euo pipefail

readonly kSsh=/etc/lockstep-ssh
readonly kMpiHosts=${MPI_HOSTS:-/etc/mpi/hostfile}
readonly kProcesses=${PROCESSES:-/proc}
hosts=$(mktemp)
readonly hosts

fail() {
  printf 'launch.sh: %s\n' "$*" >&2
  exit 64
}

# One "HOST slots=N" a line, this pod first: rank 0 runs beside the launcher.
write_hosts() {
  local node
  if [[ -n ${LWS_LEADER_ADDRESS:-} ]]; then
    printf '%s slots=%s\n' "$LWS_LEADER_ADDRESS" "$RANKS_A_NODE"
    for ((node = 1; node < GROUP_NODES; node++)); do
      printf '%s-%s.%s slots=%s\n' "${LWS_LEADER_ADDRESS%%.*}" "$node" "${LWS_LEADER_ADDRESS#*.}" "$RANKS_A_NODE"
    done
  elif [[ -r $kMpiHosts ]]; then
    sed -E 's/[[:space:]].*//; /^$/d' "$kMpiHosts" | while IFS= read -r node; do
      printf '%s slots=%s\n' "$node" "$RANKS_A_NODE"
    done
  else
    fail "neither LWS_LEADER_ADDRESS nor $kMpiHosts tells who belongs to the group"
  fi
}

# Names and pods appear in any order: a name that is unknown now may be known in a second.
wait_for_workers() {
  local host deadline=$((SECONDS + START_SECONDS))
  while read -r host _; do
    until (exec 3<>"/dev/tcp/$host/$SSH_PORT") 2>/dev/null; do
      ((SECONDS < deadline)) || fail "no answer from $host port $SSH_PORT within $START_SECONDS s"
      sleep 1
    done
  done < <(tail -n +2 "$hosts")
}

# lead LAUNCHER_OPTION...
lead() {
  local name variables=()
  write_hosts >"$hosts"
  (($(wc -l <"$hosts") == GROUP_NODES)) || fail "expected $GROUP_NODES hosts, found: $(tr '\n' ' ' <"$hosts")"
  wait_for_workers
  for name in ${RANKS_ENV:-}; do
    variables+=(-x "$name")
  done
  # Ports are fixed, so that a NetworkPolicy can name them. One host key is shared: HostKeyAlias finds it under one name.
  exec lockstep-run -n "$((GROUP_NODES * RANKS_A_NODE))" --hostfile "$hosts" "$@" --mpi "${variables[@]}" \
    --mca plm_rsh_args "-p $SSH_PORT -i $kSsh/id -o HostKeyAlias=lockstep -o UserKnownHostsFile=$kSsh/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes" \
    --mca oob_tcp_dynamic_ipv4_ports "$MPI_PORT-$((MPI_PORT + 127))" \
    --mca btl_tcp_port_min_v4 "$((MPI_PORT + 128))" --mca btl_tcp_port_range_v4 128 \
    --mca btl self,vader,tcp --mca pml ob1 -- lockstepd
}

# drain SECONDS: asks this pod's ranks for it, which takes the whole group along, and waits until they have left.
drain() {
  local process asked=()
  sleep "$1"
  for process in "$kProcesses"/[0-9]*; do
    if [[ $(cat "$process/comm" 2>/dev/null) == lockstepd ]] && kill -s USR1 "${process##*/}"; then
      asked+=("$process")
    fi
  done
  for process in "${asked[@]}"; do
    while [[ -e $process/comm ]]; do
      sleep 0.2
    done
  done
}

case ${1:-} in
  leader) lead "${@:2}" ;;
  worker) exec /usr/sbin/sshd -D -e -f /etc/lockstep/sshd_config ;;
  drain) drain "${2:?seconds}" ;;
  *) fail "expected leader, worker or drain" ;;
esac
