#!/usr/bin/env bash
# A long search: tests/fuzz/run.sh SECONDS [FOLDER]
# SECONDS are shared out over the targets, one after the other. With clang the targets are built with libFuzzer (preset fuzz), else with
# gcc's sanitizers and the plain driver (preset asan). New inputs go to FOLDER/corpus/<target> (build/fuzzing), where the next search goes on;
# inputs that end a target go to FOLDER/findings, and the exit code is 1.
set -euo pipefail
seconds=${1:?usage: run.sh SECONDS [FOLDER]}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=${2:-$root/build/fuzzing}
targets=(config fault manifest shard corpus features)
each=$(((seconds + ${#targets[@]} - 1) / ${#targets[@]}))
preset=asan
if command -v clang >/dev/null; then
    preset=fuzz
fi
mkdir -p "$folder/findings"
folder=$(cd "$folder" && pwd)
export TMPDIR=$folder
export ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=1000:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
export LSAN_OPTIONS=suppressions=$root/tests/sanitizers/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1

cd "$root"
cmake --preset $preset >"$folder/build.log"
cmake --build "build/$preset" --target "${targets[@]/#/fuzz_}" >>"$folder/build.log"

found=0
for target in "${targets[@]}"; do
    program=build/$preset/tests/fuzz/fuzz_$target
    kept=$folder/corpus/$target
    log=$folder/$target.log
    mkdir -p "$kept"
    code=0
    if [ $preset = fuzz ]; then
        nice -n 19 "$program" -max_total_time="$each" -timeout=25 -rss_limit_mb=2048 -max_len=20000 -print_final_stats=1 \
            -artifact_prefix="$folder/findings/$target-" "$kept" "tests/fuzz/$target" >"$log" 2>&1 || code=$?
        runs=$(sed -nE 's/^stat::number_of_executed_units: *//p' "$log")
    else
        last=$folder/last-$target
        nice -n 19 "$program" --seconds "$each" --seed "$(date +%s)" --last "$last" "tests/fuzz/$target" >"$log" 2>&1 || code=$?
        runs=$(sed -nE 's/.* ([0-9]+) random inputs.*/\1/p' "$log")
        [ $code -eq 0 ] || cp "$last" "$folder/findings/$target-$(date +%s)"
    fi
    echo "fuzz_$target: ${runs:-no count of} inputs in $each s, exit code $code"
    if [ $code -ne 0 ]; then
        found=1
        tail -n 40 "$log"
    fi
done
[ $found -eq 0 ] && echo "no finding" || echo "findings in $folder/findings"
exit $found
