#!/usr/bin/env bash
# What is run first when a GPU is at hand: all tests labelled gpu, compute-sanitizer over the device's own, and the benches. Prints a report, the one of docs/gpu.md.
# usage: tests/gpu/run.sh [BUILD_FOLDER]     default: build/release, built with the CUDA plugin
# Ends with 0: all well; 1: something failed; 2: nothing to run was built; 77: there is no device.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:-$root/build/release}
readonly root build
# All kernels of the suite run under each; it is minutes each time, so what hangs is ended.
readonly sanitizer_tools=(memcheck racecheck synccheck initcheck)
readonly limit_seconds=1800
readonly bench_requests=(1 8 64)

failures=0

say() { printf '%s\n' "$*"; }

# One line of the report: a name, what came of it, and what is to be known beyond that.
result() {
  say "| $1 | $2 | $3 |"
  [[ $2 != failed ]] || failures=$((failures + 1))
}

device_facts() {
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1
}

toolkit() {
  local text
  text=$("${LOCKSTEP_NVCC:-nvcc}" --version 2>/dev/null) || text=$(/usr/local/cuda/bin/nvcc --version 2>/dev/null) || text="not found"
  sed -n 's/.*release \([0-9.]*\).*/CUDA \1/p; s/^not found$/&/p' <<<"$text"
}

commit() {
  local changed=""
  [[ -z $(git -C "$root" status --porcelain 2>/dev/null) ]] || changed=", changed since"
  say "$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)$changed"
}

header() {
  say "# lockstep on a GPU"
  say ""
  say "| | |"
  say "|---|---|"
  say "| date | $(date -u +%Y-%m-%d) |"
  say "| device, driver, memory | ${1//$'\n'/; } |"
  say "| toolkit | $(toolkit) |"
  say "| kernel of the host | $(uname -r) |"
  say "| commit | $(commit) |"
}

# A line for each test of the label, from ctest's own: a skipped one has not shown anything, so it counts as failed here.
tests() {
  local output line name outcome seconds count=0
  output=$(ctest --test-dir "$build" -L '^gpu$' --timeout "$limit_seconds" --output-on-failure 2>&1)
  while IFS= read -r line; do
    [[ $line =~ Test\ +#[0-9]+:\ ([A-Za-z0-9_]+)\ \.*\ *(Passed|\*\*\*[^0-9]*[^0-9\ ])\ +([0-9.]+)\ sec ]] || continue
    name=${BASH_REMATCH[1]} outcome=${BASH_REMATCH[2]} seconds=${BASH_REMATCH[3]}
    count=$((count + 1))
    if [[ $outcome == Passed ]]; then
      result "$name" passed "$seconds s"
    else
      result "$name" failed "${outcome//\*/}, $seconds s"
    fi
  done <<<"$output"
  ((count > 0)) || result "tests labelled gpu" failed "none was run: was the CUDA plugin built?"
  printf '%s\n' "$output" >"$log/tests.log"
}

sanitizer() {
  local tool status
  if ! command -v compute-sanitizer >/dev/null; then
    result compute-sanitizer failed "not found: it comes with the toolkit"
    return
  fi
  for tool in "${sanitizer_tools[@]}"; do
    timeout "$limit_seconds" compute-sanitizer --tool "$tool" --error-exitcode 99 \
      "$build/tests/conformance_device" --gtest_brief=1 '--gtest_filter=*cuda*' >"$log/$tool.log" 2>&1
    status=$?
    case $status in
      0) result "compute-sanitizer $tool" passed "conformance_device" ;;
      99) result "compute-sanitizer $tool" failed "$(grep -m1 'ERROR SUMMARY' "$log/$tool.log" | sed 's/^=* *//')" ;;
      *) result "compute-sanitizer $tool" failed "status $status" ;;
    esac
  done
}

benches() {
  local requests graphs figures
  if [[ ! -x $build/bench/bench_step ]]; then
    result bench_step failed "not built"
    return
  fi
  for requests in "${bench_requests[@]}"; do
    for graphs in none full; do
      if figures=$(timeout "$limit_seconds" "$build/bench/bench_step" "$root/bench/models/mid" "$requests" 1 5 cuda "$graphs" "$build/plugins" 2>"$log/bench.log"); then
        result "bench_step, $requests requests, graphs $graphs" measured "\`$figures\`"
      else
        result "bench_step, $requests requests, graphs $graphs" failed "$(tail -n 1 "$log/bench.log")"
      fi
    done
  done
}

if ! facts=$(command -v nvidia-smi >/dev/null && device_facts) || [[ -z $facts ]]; then
  say "tests/gpu: no NVIDIA device here: ${facts:-nvidia-smi is not installed}; nothing was run" >&2
  exit 77
fi
if [[ ! -f $build/CTestTestfile.cmake ]]; then
  say "tests/gpu: $build has no tests: configure and build it first (./dev build), or name another folder" >&2
  exit 2
fi
log=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-gpu.XXXXXX")
readonly log

header "$facts"
say ""
say "| What | Result | Remarks |"
say "|---|---|---|"
tests
sanitizer
benches
say ""
say "Failed: $failures. Full output: $log"
((failures == 0))
