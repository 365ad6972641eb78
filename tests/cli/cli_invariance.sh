#!/usr/bin/env bash
# One digest for 1, 2, 3 and 4 ranks, for both forms of the vote exchange and for the reference backend; another one for another seed.
# The run moves trits and exponents, units are shared out evenly, and the counted bytes of votes are the formula's.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

train() {
    local count=$1 run=$2
    shift 2
    expect 0 ranks "$count" train --config c.yaml --run "$run" "$@"
}

train 1 r1
want=$(final_field digest)
same "$(final_field step)" 8 "steps"
for n in 2 3 4; do
    train "$n" "r$n"
    same "$(final_field digest)" "$want" "digest on $n ranks and on one"
done
for n in 2 3 4; do
    train "$n" "s$n" --set vote.exchange=sharded
    same "$(final_field digest)" "$want" "digest of the sharded exchange on $n ranks"
done

expect 0 trivote train --config c.yaml --run alone
same "$(final_field digest)" "$want" "digest without mpirun"
expect 0 trivote train --config c.yaml --run reference --set run.backend=ref
same "$(final_field digest)" "$want" "digest of the ref backend"
train 2 threads --set run.threads=3
same "$(final_field digest)" "$want" "digest with three threads a rank"

train 2 seed --set train.seed=8
differ "$(final_field digest)" "$want" "digest with another seed"

# The same numbers, not only the same end.
for run in r2 r3 r4 s4 alone reference; do
    same "$(metric "$run" loss)" "$(metric r1 loss)" "loss of the last step in $run"
    same "$(metric_sum "$run" flips)" "$(metric_sum r1 flips)" "flips in $run"
done

# A run in which little moves would prove little.
weights=$(metric r1 weights)
flips=$(metric_sum r1 flips)
moves=$(metric_sum r1 exponent_moves)
[ "$((flips * 20))" -ge "$weights" ] || fail "only $flips flips of $weights trits"
[ "$((moves * 100 * 32))" -ge "$weights" ] || fail "only $moves moves of about $((weights / 32)) exponents"

# Every step a rank runs U / R units, and hands each vote, one byte, to one collective.
for n in 2 3 4; do
    same "$(metric "r$n" units_run)" $((8 * 12 / n)) "units run by rank 0 of $n"
done
for n in 2 4; do
    same "$(metric "r$n" wire_vote_bytes)" $((8 * weights)) "bytes of votes on $n ranks"
    same "$(metric "s$n" wire_vote_bytes)" $((8 * weights)) "bytes of votes, sharded, on $n ranks"
done

# The same with the config that is kept for it, started from the root of the tree as its paths want.
cd "$root"
for n in 1 2 3 4; do
    expect 0 ranks "$n" train --config tests/data/invariance.yaml --run "$work/i$n"
    same "$(final_field digest)" "$(trivote digest --checkpoint "$(newest "$work/i1")")" "tests/data/invariance.yaml on $n ranks"
done
expect 0 ranks 4 train --config tests/data/invariance.yaml --run "$work/sharded" --set vote.exchange=sharded
same "$(final_field digest)" "$(trivote digest --checkpoint "$(newest "$work/i1")")" "tests/data/invariance.yaml, sharded"
cd "$work"

echo "digest $want, $flips flips, $moves exponent moves, $weights weights"
