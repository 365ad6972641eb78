#!/usr/bin/env bash
# Tables of n-grams from outside: one digest for any number of ranks and of places, row ids and votes that do travel, checkpoints that move
# between numbers of ranks, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-memgram.yaml
cd "$root"

# The last figure of the part in the metrics: figure RUN NAME
figure() {
    part_figure "$1" memgram "$2"
}

# The last numbers of rows by strength: histogram RUN NAME
histogram() {
    grep '"event":"step"' "$work/$1/metrics.jsonl" | tail -n 1 | sed -E "s/.*\"$2\":\[([0-9,]+)\].*/\1/"
}

same_on_ranks
train 3 one --set parallel.table_ranks=1 --set vote.exchange=sharded
same "$(final_field digest)" "$want" "digest with the tables on 1 of 3 ranks"

# Row ids and votes travel where there are several ranks, and only there; what is learnt does not depend on it.
for name in rows_sent votes_sent wire_bytes; do
    same "$(figure r1 $name)" 0 "$name of one rank alone"
    for run in r2 r4 one; do
        awk -v x="$(figure $run $name)" 'BEGIN {exit !(x > 0)}' || fail "$run: no $name"
    done
done
for table in struct conv; do
    for name in touched flips exponent_moves used strong; do
        same "$(figure r4 ${table}_$name)" "$(figure r1 ${table}_$name)" "${table}_$name on 4 ranks"
    done
    bins=$(histogram r1 ${table}_strength)
    same "$(histogram r4 ${table}_strength)" "$bins" "${table}_strength on 4 ranks"
    same "$(awk -F , '{for (i = 1; i <= NF; i++) n += $i; print n}' <<<"$bins")" 1009 "rows in the bins of ${table}_strength"
    awk -v x="$(figure r1 ${table}_touched)" 'BEGIN {exit !(x > 0)}' || fail "$table: no row is used"
done

# A checkpoint of 4 ranks goes on with 2, and that one with 1, at the same bits; any number of ranks evaluates it.
moved_over_ranks
expect 0 trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 20 --seed 3
expect 0 trivote verify --checkpoint "$checkpoint"
expect 0 trivote audit --config configs/memgram-quickstart.yaml --ranks 2
says 'memgram'
says 'float tensors: 0'

# A rank that fails between the exchanges ends all of them; none waits for ever.
got=0
out=$(TV_FAULT=memgram.rows:rank=1:hit=3:errno=EIO ranks 3 train --config $config --run "$work/broken" 2>&1) || got=$?
same "$got" 1 "exit code of a run whose rank 1 failed"
says_once 'error: rank 1: fail point memgram.rows: Input/output error'

# Refused, each in one sentence that says what fits.
refuse memgram.rows=1 'memgram.rows is 1, but a choice needs 2 rows'
refuse 'memgram.orders=[1, 2]' "key 'memgram.orders': 1 is outside 2..8"
refuse 'memgram.orders=[2, 9]' "key 'memgram.orders': 9 is outside 2..8"
refuse 'memgram.orders=[3, 2]' 'memgram.orders has 2 behind 3, but they ascend'
refuse 'memgram.orders=[]' "key 'memgram.orders': the list is empty"
expect 2 ranks 3 train --config $config --run "$work/bad" --set parallel.table_ranks=3 --set memgram.rows=2 --set codebook.rows=0
says "parallel.table_ranks 3 is more than the 2 buckets of tensor .memgram.struct."
expect 1 trivote train --config $config --run "$work/moved" --set memgram.rows=1010
says 'memgram.rows: 1010 here, 1009 there'
expect 1 trivote train --config $config --run "$work/moved" --set 'memgram.orders=[2, 3]'
says 'memgram.orders: \[2, 3\] here, \[2, 3, 5\] there'
expect 1 trivote train --config $config --run "$work/moved" --set memgram.rows=0
says 'memgram.rows: 0 here, 1009 there'
echo "digest $want"
