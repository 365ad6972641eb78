#!/usr/bin/env bash
# A rank that hangs is named, with the collective that it did not come to, and the run ends in time with 70; a run that
# was merely stopped goes on. A flipped bit is named with tensor and rank. Nothing is saved from either.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v python3 >/dev/null || skip "no python3 to read the reports"
make_small
limits=(--set comm.timeout=3 --set comm.start_timeout=20 --set checkpoint.every=2 --set train.eval_every=0 --set checkpoint.async=false)

# hangs FAULT RUN COUNT ARGUMENT...: ends with 70, soon.
hangs() {
    local fault=$1 run=$2 count=$3 begun=$SECONDS
    shift 3
    TV_FAULT=$fault expect 70 ranks "$count" train --config c.yaml --run "$run" "${limits[@]}" "$@"
    [ $((SECONDS - begun)) -lt 30 ] || fail "$fault took $((SECONDS - begun)) s"
    says_once 'trivote: error'
}

# report RUN RANK EXPRESSION: a Python expression on the report `r` of a rank.
report() {
    out=$(python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' \
        "$1/hang-rank-0000$2.json" "$3" 2>&1) || fail "report of rank $2: not $3"
}

checkpoints() {
    find "$1" -maxdepth 1 -name 'step-*' | sort | tr '\n' ' '
}

# The collective that a stopped process does not come to.
hangs step.guard:rank=1:hit=5:stop stopped 3
says 'ranks 0, 2 wait in collective [0-9]+ \(all-gather, guard, 120 bytes\) of step 5, guard'
says 'rank 1 did not arrive: last seen in step 5, guard, [0-9.]+ s after collective [0-9]+ \([a-z]'
says 'no sign of life from its process'
same "$(checkpoints stopped)" "stopped/step-000000002 stopped/step-000000004 " "checkpoints of a stopped rank"
for rank in 0 2; do
    report stopped $rank "r['rank'] == $rank and r['ranks'] == 3 and r['hangs_in'] == 'collective' and r['step'] == 5"
    report stopped $rank "r['last']['purpose'] == 'guard' and r['last']['left_ago'] is None and r['last'] == r['collectives'][-1]"
    report stopped $rank "len(r['collectives']) == 64 and all(c['left_ago'] is not None for c in r['collectives'][:-1])"
done
report stopped 0 "r['last']['number'] == json.load(open('stopped/hang-rank-00002.json'))['last']['number']"

# One that lives but does not come, the lowest one: another rank tells.
hangs comm.sum:rank=0:hit=20:delay=60 late 3
says 'rank 1: ranks 1, 2 wait in collective [0-9]+ \((sum|maximum) of'
says 'rank 0 did not arrive: last seen in '
says_not 'no sign of life'

# In the start-up its own limit holds, in MPI's start too, and at MPI's end.
hangs comm.broadcast:rank=1:stop start 2 --set comm.start_timeout=2
says 'rank 0 waits in collective [0-9]+ \((broadcast|barrier|all-gather), .* of start-up for [0-9.]+ s; nothing is heard of rank 1'
export TV_START_TIMEOUT=2
TV_FAULT=comm.start:rank=1:stop expect 70 ranks 2 train --config c.yaml --run never "${limits[@]}"
says 'rank 0: MPI has not started for [23] s'
unset TV_START_TIMEOUT
hangs comm.end:rank=1:stop end 2
says 'wait.? in collective [0-9]+ \(end of MPI'
same "$(newest end)" end/step-000000008 "a run that hangs after its end"

# Outside of collectives, alone.
begun=$SECONDS
TV_FAULT=step.start:hit=3:delay=60 expect 70 trivote train --config c.yaml --run alone "${limits[@]}" --set comm.timeout=1
[ $((SECONDS - begun)) -lt 20 ] || fail "a hang of one process took $((SECONDS - begun)) s"
says_once 'trivote: error: nothing moves for [0-9.]+ s in step 3, units, after collective'
report alone 0 "r['hangs_in'] == 'progress' and r['phase'] == 'units'"
same "$(checkpoints alone)" "alone/step-000000002 " "checkpoints of a process that hangs"

# Stopped for longer than the limit, then continued: no hang.
in_background continued.log "$program" train --config c.yaml --run continued --set train.steps=2000 --set comm.timeout=1 --set train.eval_every=0
wait_for 20 grep -q '^ *2 ' continued.log || fail "no second step"
kill -STOP "$background"
sleep 5
kill -CONT "$background"
sleep 3
kill -0 "$background" || fail "a continued process ended: $(cat continued.log)"
kill -USR2 "$background"
join_background continued.log
same "$code" 75 "exit code of a continued process"

# A bit that flips on one rank.
TV_FAULT=state.flip:rank=1:hit=5:flip-bit expect 1 ranks 3 train --config c.yaml --run flipped "${limits[@]}" --set guard.hash_every=1
says 'rank 0: [a-z0-9._]+ is not the same on all ranks: rank 1 has [0-9a-f]{8}; rank 0 and those equal to it have'
same "$(checkpoints flipped)" "flipped/step-000000002 flipped/step-000000004 " "checkpoints of a damaged state"
TV_FAULT=state.flip:rank=2:hit=6:flip-bit expect 1 ranks 3 train --config c.yaml --run saved "${limits[@]}" --set guard.hash_every=0
says 'rank 0: [a-z0-9._]+ is not the same on all ranks: rank 2 has [0-9a-f]{8}; rank 0 and those equal to it have'
same "$(checkpoints saved)" "saved/step-000000002 saved/step-000000004 " "checkpoints of a state that is damaged at a save"

# What was there goes on.
expect 0 trivote train --config c.yaml --run whole
want=$(final_field digest)
for run in stopped late alone flipped saved; do
    expect 0 ranks 2 train --config c.yaml --run $run
    same "$(final_field digest)" "$want" "digest of $run after it went on"
done
