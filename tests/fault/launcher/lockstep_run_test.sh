#!/usr/bin/env bash
# Goal    lockstep-run gives survivors their time, passes signals on, ends stragglers, and returns the first error.
# Method  Ranks are small shell programs under the real mpirun; each case is a function, a failed check names it and the log.
set -u

readonly run=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

check() { # check NAME EXPECTED ACTUAL
  if [[ $2 != "$3" ]]; then
    printf 'FAILED %s: expected "%s", got "%s"\n' "${FUNCNAME[1]} $1" "$2" "$3"
    failures=$((failures + 1))
  fi
}

# Waits until a command succeeds; at most 30 s.
eventually() {
  local end=$((SECONDS + 30))
  until "$@"; do
    ((SECONDS < end)) || return 1
    read -r -t 0.05 <> <(:)
  done
}
has_lines() { [[ -e $1 ]] && (($(wc -l <"$1") >= $2)); }

launch() { timeout --foreground 60 "$run" "$@" 2>>"$work/log"; }

all_zero_is_zero() {
  launch -n 3 --status-dir "$work/zero" -- true
  check status 0 $?
  check recorded "0 0 0" "$(cat "$work"/zero/rank.* | xargs)"
}

one_rank_runs_without_mpirun() {
  # shellcheck disable=SC2016
  check secret 64 "$(launch -- bash -c 'printf %s "$LOCKSTEP_GROUP_SECRET" | wc -c')"
  launch -- bash -c 'exit 7'
  check status 7 $?
  # shellcheck disable=SC2016
  check mpirun none "$(launch -- bash -c 'echo "${OMPI_COMM_WORLD_RANK:-none}"')"
}

every_rank_has_the_same_secret_and_it_is_on_no_command_line() {
  # shellcheck disable=SC2016
  launch -n 2 -- bash -c 'echo "$LOCKSTEP_GROUP_SECRET" >>"$0/secrets"; ps -eo args >"$0/args.$OMPI_COMM_WORLD_RANK"' "$work"
  check different 1 "$(sort -u "$work/secrets" | wc -l)"
  check on-command-lines 0 "$(cat "$work"/args.* | grep -cFf "$work/secrets")"
}

a_killed_rank_leaves_the_others_their_grace_and_is_the_first_error() {
  # Rank 0 goes on until it sees that rank 1 is recorded dead, then some more, and returns an error of its own.
  # shellcheck disable=SC2016
  launch -n 2 --status-dir "$work/killed" -- bash -c '
    if [[ $OMPI_COMM_WORLD_RANK == 1 ]]; then kill -9 $$; fi
    until [[ -e $0/rank.1 ]]; do sleep 0.05; done
    sleep 1.5; exit 3' "$work/killed"
  check status 137 $?
  check killed 137 "$(cat "$work/killed/rank.1")"
  check survivor 3 "$(cat "$work/killed/rank.0")"
}

a_straggler_is_ended() {
  local begin=$SECONDS
  # shellcheck disable=SC2016
  launch -n 2 --grace 1 --status-dir "$work/straggler" -- bash -c '
    if [[ $OMPI_COMM_WORLD_RANK == 1 ]]; then exit 5; fi
    trap "" TERM; while :; do sleep 0.1; done'
  check status 5 $?
  check killed 137 "$(cat "$work/straggler/rank.0")"
  check bounded 1 $((SECONDS - begin < 30))
}

# Starts two ranks that write what they get; leaves the launcher's process id in `pid`.
start_listeners() {
  local dir=$1
  mkdir -p "$dir"
  # shellcheck disable=SC2016
  "$run" -n 2 --status-dir "$dir" -- bash -c '
    trap "echo usr1 >>$0/got; '"$2"'" USR1
    echo ready >>$0/ready
    while :; do sleep 0.1; done' "$dir" 2>>"$work/log" &
  pid=$!
  eventually has_lines "$dir/ready" 2
}

a_drain_signal_reaches_every_rank_once() {
  local pid signal
  for signal in TERM USR1; do
    start_listeners "$work/drain$signal" 'sleep 1; exit 0'
    kill -s "$signal" "$pid"
    wait "$pid"
    check "status after $signal" 0 $?
    check "received after $signal" "usr1 usr1" "$(xargs <"$work/drain$signal/got")"
  done
}

a_second_signal_ends_ranks_that_do_not_drain() {
  local pid
  start_listeners "$work/hard" ':'
  kill -s TERM "$pid"
  eventually has_lines "$work/hard/got" 2
  kill -s TERM "$pid"
  wait "$pid"
  check status 143 $?
}

misuse_is_refused_with_a_reason() {
  local text
  text=$("$run" -n 0 -- true 2>&1)
  check status 64 $?
  check reason "lockstep-run: -n 0: expected a number from 1 to 99999" "$text"
  "$run" -n 2 2>/dev/null
  check no-program 64 $?
  text=$(PATH=$work/bin "$BASH" "$run" -n 2 -- true 2>&1)
  check no-mpirun 69 $?
  check names-the-package 1 "$(grep -c openmpi-bin <<<"$text")"
}

mkdir "$work/bin"
for tool in od tr mktemp readlink; do
  ln -s "$(command -v "$tool")" "$work/bin/$tool"
done
for case in all_zero_is_zero one_rank_runs_without_mpirun every_rank_has_the_same_secret_and_it_is_on_no_command_line \
  a_killed_rank_leaves_the_others_their_grace_and_is_the_first_error a_straggler_is_ended a_drain_signal_reaches_every_rank_once \
  a_second_signal_ends_ranks_that_do_not_drain misuse_is_refused_with_a_reason; do
  before=$failures
  "$case"
  ((failures > before)) || printf 'ok %s\n' "$case"
done
if ((failures > 0)); then
  cat "$work/log"
  exit 1
fi
