#!/usr/bin/env bash
# run_fuzz.sh TARGET SECONDS [OPTION ...]: one fuzz target on its kept corpus, its dictionary and what earlier runs found; options go to libFuzzer.
# What it finds new lies in the build folder; what makes it fail lies there too, and the last lines say how to run that again.
set -euo pipefail

target=$1 seconds=$2
shift 2
name=$(basename "$target")
name=${name#fuzz_}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
found=$(dirname "$target")/../fuzz/$name
mkdir -p "$found/corpus" "$found/failures"

options=(-max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 -artifact_prefix="$found/failures/")
case $name in
  safetensors | tokenizer_file | model_config | request_body) options+=(-dict="$here/dictionaries/json.dict") ;;
  *) if [[ -f $here/dictionaries/$name.dict ]]; then options+=(-dict="$here/dictionaries/$name.dict"); fi ;;
esac

log=$found/last.log status=0
"$target" "${options[@]}" "$@" "$found/corpus" "$here/corpus/$name" >"$log" 2>&1 || status=$?
if ((status != 0)); then
  tail -n 80 "$log"
  input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
  printf '\nfuzz target %s failed; the whole output: %s\nrun it again:\n  %s %s\nonce it is mended, keep it:\n  cp %s %s/corpus/%s/WHAT_IT_IS.seed\n' \
    "$name" "$log" "$target" "${input:-INPUT}" "${input:-INPUT}" "$here" "$name"
  exit "$status"
fi
sed -n 's/^stat::\(number_of_executed_units\|new_units_added\|peak_rss_mb\): */\1 /p' "$log" | tr '\n' ' '
grep -oE 'cov: [0-9]+' "$log" | tail -n 1
