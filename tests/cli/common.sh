# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by the scripts of this folder: cli_NAME.sh PROGRAM MPIEXEC ROOT. Each works in a folder of its own that is removed at the end.
set -euo pipefail
program=${1:?usage: cli_NAME.sh PROGRAM MPIEXEC ROOT}
mpiexec=${2:?usage: cli_NAME.sh PROGRAM MPIEXEC ROOT}
root=${3:?usage: cli_NAME.sh PROGRAM MPIEXEC ROOT}

# Open MPI as root, with more ranks than cores, quietly in a container; one thread a rank, so that four ranks fit two cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive MPIEXEC_TIMEOUT=${MPIEXEC_TIMEOUT:-280}

# Ranks share a core here, but cannot share a GPU: these tests are of the CPU, but for those that ask for one.
if [ -z "${TV_CLI_GPU:-}" ]; then
    export CUDA_VISIBLE_DEVICES=
fi

work=$(mktemp -d)
background= # process and session id of what runs in the background
clean_up() {
    [ -z "$background" ] || kill_background
    rm -rf "$work"
}
trap clean_up EXIT
cd "$work"

out= # what the last command printed, both streams

fail() {
    echo "FAILED: $*"
    echo "--- output of the last command:"
    echo "$out"
    exit 1
}

skip() {
    echo "skipped: $*"
    exit 77
}

# expect CODE COMMAND...: the command must end with that code.
expect() {
    local want=$1 got=0
    shift
    out=$("$@" 2>&1) || got=$?
    [ "$got" -eq "$want" ] || fail "exit code $got, not $want: $*"
}

# says PATTERN: the last command printed it (extended regular expression, any case).
says() {
    grep -qiE -- "$1" <<<"$out" || fail "the output lacks: $1"
}

says_not() {
    ! grep -qiE -- "$1" <<<"$out" || fail "the output has: $1"
}

# The error lines that a user sees: exactly one.
says_once() {
    local count
    count=$(grep -ciE -- "$1" <<<"$out" || true)
    [ "$count" -eq 1 ] || fail "$count lines, not one, with: $1"
}

same() {
    [ "$1" = "$2" ] || fail "$3: '$1' and '$2' differ"
}

differ() {
    [ "$1" != "$2" ] || fail "$3: both are '$1'"
}

trivote() {
    "$program" "$@"
}

# ranks N ARGUMENT...: the program on N ranks.
ranks() {
    local count=$1
    shift
    "$mpiexec" -np "$count" "$program" "$@"
}

# in_background LOG COMMAND...: its own session, so that all of its processes can be ended together.
in_background() {
    local log=$1
    shift
    setsid "$@" >>"$log" 2>&1 &
    background=$!
}

# SIGKILL to the whole session: a launcher that is killed cannot end its ranks.
kill_background() {
    pkill -KILL -s "$background" || true
    wait "$background" 2>/dev/null || true
    wait_for 20 session_is_over "$background" || true
    background=
}

session_is_over() {
    ! pgrep -s "$1" >/dev/null
}

# Ends when the background command does; its exit code goes to `code`, its log to `out`.
join_background() {
    code=0
    wait "$background" || code=$?
    background=
    out=$(cat "$1")
}

# Text with some structure to learn: words drawn unevenly by a fixed generator. make_text FILE BYTES [SEED]
make_text() {
    awk -v bytes="$2" -v x="${3:-42}" '
        BEGIN {
            n = split("the and of that to in he shall unto for his they be is with not all it thou was which my day king " \
                      "people house water light evening morning seven gathered mountain", word, " ")
            while (length_so_far < bytes) {
                x = (x * 16807) % 2147483647
                r = x / 2147483647
                line = line word[1 + int(n * r * r)] (x % 11 == 0 ? ".\n" : " ")
                length_so_far += length(line)
                printf "%s", line
                line = ""
            }
        }' >"$1.long"
    head -c "$2" "$1.long" >"$1"
    rm "$1.long"
}

# A model small enough that a run takes a moment. No warm-up and quick exponents, so that trits and exponents move from the first step.
make_config() {
    cat >"$1" <<'YAML'
model: {width: 64, blocks: 1, heads: 2, context: 32, ffn: 96, scale_type: T32}
data: {train: [text.txt], valid: "", valid_bytes: 4000}
train: {steps: 8, units: 12, unit_windows: 2, seed: 7, eval_every: 4, eval_windows: 8, stop_at: 0}
vote: {dead_zone: 0.5, levels: 1, combine: majority, quorum: 1, exchange: allreduce}
update: {rule: restart, threshold: 64, step: 24.0, schedule: linear, warmup: 0, final: 0.5, exponent_step: 1, exponent_threshold: 2}
checkpoint: {every: 4, keep: 3}
run: {dir: run, backend: auto}
YAML
}

# Text and config under their usual names.
make_small() {
    make_text text.txt 60000
    make_config c.yaml
}

# Fields of the line `final: step=N val_bpb=X digest=HEX` of the last output.
final_field() {
    local line
    line=$(grep -E '^final: step=[0-9]+ val_bpb=[0-9.]+ digest=[0-9a-f]{32}$' <<<"$out") || fail "no final line"
    sed -E "s/.*\\b$1=([^ ]+).*/\\1/" <<<"$line"
}

# The last value of a number in a run's metrics of steps: metric RUN NAME
metric() {
    grep '"event":"step"' "$1/metrics.jsonl" | tail -n 1 | sed -E "s/.*\"$2\":([-+.e0-9]+).*/\\1/"
}

metric_sum() {
    grep '"event":"step"' "$1/metrics.jsonl" | sed -E "s/.*\"$2\":([-+.e0-9]+).*/\\1/" | awk '{s += $1} END {printf "%.17g\n", s}'
}

# The last figure of a part in a run's metrics: part_figure RUN PART NAME
part_figure() {
    grep '"event":"step"' "$work/$1/metrics.jsonl" | tail -n 1 | sed -E "s/.*\"$2\":\\{[^}]*\"$3\":([-+.e0-9]+).*/\\1/"
}

# train RANKS RUN [OPTION]...: with the script's `config`.
train() {
    local count=$1 run=$2
    shift 2
    expect 0 ranks "$count" train --config "$config" --run "$work/$run" "$@"
}

# Runs r1 to r4 on so many ranks end with one digest, `want`, and with the same losses.
same_on_ranks() {
    local n
    train 1 r1
    want=$(final_field digest)
    for n in 2 3 4; do
        train "$n" "r$n"
        same "$(final_field digest)" "$want" "digest on $n ranks"
        same "$(metric_sum "$work/r$n" loss)" "$(metric_sum "$work/r1" loss)" "losses on $n ranks"
    done
}

# The newest `checkpoint` of the run `moved` tells the same on any number of ranks.
same_evaluation() {
    local n bpb first_bpb=
    checkpoint=$(newest "$work/moved")
    for n in 1 3 4; do
        expect 0 ranks "$n" eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21
        bpb=$(grep -oE 'bpb=[0-9.]+' <<<"$out")
        same "$bpb" "${first_bpb:=$bpb}" "bits per byte on $n ranks"
    done
}

# A run of 4 ranks that goes on with 2 and then with 1 ends with the digest `want`, and evaluates alike.
moved_over_ranks() {
    train 4 moved --set train.stop_at=8
    train 2 moved --set train.stop_at=16
    train 1 moved
    same "$(final_field digest)" "$want" "digest after 4, 2 and 1 ranks"
    same_evaluation
}

# refuse KEY=VALUE PATTERN: the script's `config` with this key is told to be wrong, in one line.
refuse() {
    expect 2 trivote train --config "$config" --run "$work/bad" --set "$1"
    says_once "$2"
}

# A python3 that has h5py; fails where there is none.
python_with_h5py() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import h5py, numpy' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# The newest checkpoint of a run folder.
newest() {
    find "$1" -maxdepth 1 -type d -name 'step-*' ! -name '*.tmp-*' | sort | tail -n 1
}

# flip FILE OFFSET: turn one bit of a file.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059
    printf "\\$(printf '%03o' $((byte ^ 4)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local left=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.1
    done
}
