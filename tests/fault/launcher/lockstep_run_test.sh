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
  return 0 # not the status of the loop's last command
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

a_lost_peer_does_not_hide_its_cause() {
  # The survivor is recorded first.
  # shellcheck disable=SC2016
  launch -n 2 --status-dir "$work/cause" -- bash -c '
    if [[ $OMPI_COMM_WORLD_RANK == 0 ]]; then exit 3; fi
    until [[ -e $0/rank.0 ]]; do sleep 0.05; done
    kill -9 $$' "$work/cause"
  check status 137 $?
  launch -n 2 -- bash -c 'exit 3'
  check "status without another error" 3 $?
}

mpirun_that_outlives_its_ranks_is_ended() {
  local begin=$SECONDS
  mkdir "$work/stuck"
  # Starts one rank after the other and then stays, whatever it is asked.
  # shellcheck disable=SC2016
  printf '%s\n' '#!/usr/bin/env bash' 'trap "" TERM' 'until [[ $1 == */lockstep-run ]]; do shift; done' \
    'for rank in 0 1; do OMPI_COMM_WORLD_RANK=$rank "$@"; done' 'while :; do sleep 0.1; done' >"$work/stuck/mpirun"
  chmod +x "$work/stuck/mpirun"
  PATH=$work/stuck:$PATH launch -n 2 -- true
  check status 0 $?
  PATH=$work/stuck:$PATH launch -n 2 -- bash -c 'exit 4'
  check "status of a rank" 4 $?
  check bounded 1 $((SECONDS - begin < 50))
}

# As mpirun does when it loses another host: kills the wrappers that it started, and leaves. Left in $1/mpirun.
make_mpirun_that_kills_wrappers() {
  mkdir "$1"
  # shellcheck disable=SC2016
  printf '%s\n' '#!/usr/bin/env bash' 'until [[ $1 == */lockstep-run ]]; do shift; done' 'set -m' \
    'for rank in 0 1; do OMPI_COMM_WORLD_RANK=$rank "$@" & wrappers+=("$!"); done' \
    'until [[ -e $READY.0 && -e $READY.1 ]]; do sleep 0.05; done' 'kill -s KILL -- "${wrappers[@]/#/-}"' 'wait' ': >"$READY.killed"' >"$1/mpirun"
  chmod +x "$1/mpirun"
}

ranks_whose_wrappers_are_killed_end_by_themselves_and_are_recorded() {
  make_mpirun_that_kills_wrappers "$work/wrappers"
  # shellcheck disable=SC2016
  READY=$work/wrappers/ready PATH=$work/wrappers:$PATH launch -n 2 --status-dir "$work/wrappers/status" -- bash -c '
    : >"$READY.$OMPI_COMM_WORLD_RANK"
    until [[ -e $READY.killed ]]; do sleep 0.05; done
    sleep 0.5; exit 3'
  check status 3 $?
  check recorded "3 3" "$(cat "$work"/wrappers/status/rank.* | xargs)"
}

ranks_that_stay_when_their_wrappers_are_killed_are_ended_and_recorded() {
  make_mpirun_that_kills_wrappers "$work/stayers"
  # shellcheck disable=SC2016
  READY=$work/stayers/ready PATH=$work/stayers:$PATH launch -n 2 --grace 1 --status-dir "$work/stayers/status" -- bash -c '
    trap "" TERM; echo $$ >>"$0/pids"; : >"$READY.$OMPI_COMM_WORLD_RANK"; while :; do sleep 0.1; done' "$work/stayers"
  check status 137 $?
  check recorded "137 137" "$(cat "$work"/stayers/status/rank.* | xargs)"
  # shellcheck disable=SC2046
  eventually none_is_there $(xargs <"$work/stayers/pids")
  check "ranks gone" 0 $?
}

ranks_do_not_outlive_a_killed_launcher() {
  local pid dir ignored
  for ignored in ' ' TERM; do
    dir=$(mktemp -d -p "$work")
    # shellcheck disable=SC2016
    "$run" -n 2 --grace 1 -- bash -c 'trap "" $1; echo $$ >>$0/pids; while :; do sleep 0.1; done' "$dir" "$ignored" 2>>"$work/log" &
    pid=$!
    eventually has_lines "$dir/pids" 2
    kill -s KILL "$pid"
    # shellcheck disable=SC2046
    eventually none_is_there $(xargs <"$dir/pids")
    check "ranks gone that ignore '$ignored'" 0 $?
  done
}
none_is_there() {
  local id
  for id in "$@"; do
    ! kill -0 "$id" 2>/dev/null || return 1
  done
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
    trap "echo usr2 >>$0/reload" USR2
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

a_program_that_ends_at_once_on_a_signal_keeps_its_status() {
  local pid round
  for round in 1 2 3 4 5; do
    start_listeners "$work/quick$round" 'exit 0'
    kill -s USR1 "$pid"
    wait "$pid"
    check "status in round $round" 0 $?
  done
}

usr2_reaches_every_rank() {
  local pid
  start_listeners "$work/usr2" 'exit 0'
  kill -s USR2 "$pid"
  eventually has_lines "$work/usr2/reload" 2
  check received "usr2 usr2" "$(xargs <"$work/usr2/reload")"
  kill -s USR1 "$pid"
  wait "$pid"
  check status 0 $?
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
  local text file
  text=$("$run" -n 0 -- true 2>&1)
  check status 64 $?
  check reason "lockstep-run: -n 0: expected a number from 1 to 99999" "$text"
  "$run" -n 2 2>/dev/null
  check no-program 64 $?
  for file in "$work/absent" "$work"; do
    text=$("$run" -n 2 --hostfile "$file" -- true 2>&1)
    check hostfile 64 $?
    check hostfile-reason "lockstep-run: --hostfile $file: cannot be read; expected a file with lines of HOST slots=RANKS" "$text"
  done
  text=$(PATH=$work/bin "$BASH" "$run" -n 2 -- true 2>&1)
  check no-mpirun 69 $?
  check names-the-package 1 "$(grep -c openmpi-bin <<<"$text")"
}

mkdir "$work/bin"
for tool in od tr mktemp readlink; do
  ln -s "$(command -v "$tool")" "$work/bin/$tool"
done
for case in all_zero_is_zero one_rank_runs_without_mpirun every_rank_has_the_same_secret_and_it_is_on_no_command_line \
  a_killed_rank_leaves_the_others_their_grace_and_is_the_first_error a_lost_peer_does_not_hide_its_cause \
  mpirun_that_outlives_its_ranks_is_ended ranks_whose_wrappers_are_killed_end_by_themselves_and_are_recorded \
  ranks_that_stay_when_their_wrappers_are_killed_are_ended_and_recorded ranks_do_not_outlive_a_killed_launcher \
  a_program_that_ends_at_once_on_a_signal_keeps_its_status usr2_reaches_every_rank a_straggler_is_ended a_drain_signal_reaches_every_rank_once \
  a_second_signal_ends_ranks_that_do_not_drain misuse_is_refused_with_a_reason; do
  before=$failures
  "$case"
  ((failures > before)) || printf 'ok %s\n' "$case"
done
if ((failures > 0)); then
  cat "$work/log"
  exit 1
fi
