#!/usr/bin/env bash
# Codebooks from outside: one digest for any number of ranks and of places, queries that do travel, checkpoints that move between numbers of
# ranks, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-vq.yaml
cd "$root"

train() {
    local count=$1 run=$2
    shift 2
    expect 0 ranks "$count" train --config $config --run "$work/$run" "$@"
}

# The last figure of a part in the metrics: figure RUN PART NAME
figure() {
    grep '"event":"step"' "$work/$1/metrics.jsonl" | tail -n 1 | sed -E "s/.*\"$2\":\\{[^}]*\"$3\":([-+.e0-9]+).*/\\1/"
}

train 1 r1
want=$(final_field digest)
for n in 2 3 4; do
    train "$n" "r$n"
    same "$(final_field digest)" "$want" "digest on $n ranks"
    same "$(metric_sum "$work/r$n" loss)" "$(metric_sum "$work/r1" loss)" "losses on $n ranks"
done
train 3 two --set parallel.table_ranks=1 --set vote.exchange=sharded
same "$(final_field digest)" "$want" "digest with the tables on 1 of 3 ranks"
train 2 seed --set train.seed=2
differ "$(final_field digest)" "$want" "digest with another seed"

# Queries and votes travel where there are several ranks, and only there; what is learnt does not depend on it.
for part in codebook composite; do
    for name in queries_sent votes_sent wire_bytes; do
        same "$(figure r1 $part $name)" 0 "$part: $name of one rank alone"
        for run in r2 r4 two; do
            awk -v x="$(figure $run $part $name)" 'BEGIN {exit !(x > 0)}' || fail "$run: $part: no $name"
        done
    done
    for name in commitment rows_touched flips restarts rows_used entropy_bits; do
        same "$(figure r4 $part $name)" "$(figure r1 $part $name)" "$part: $name on 4 ranks"
    done
    awk -v x="$(figure r1 $part restarts)" 'BEGIN {exit !(x > 0)}' || fail "$part: no row starts again"
done

# A checkpoint of 4 ranks goes on with 2, and that one with 1, at the same bits; any number of ranks evaluates it.
train 4 moved --set train.stop_at=8
train 2 moved --set train.stop_at=16
train 1 moved
same "$(final_field digest)" "$want" "digest after 4, 2 and 1 ranks"
checkpoint=$(newest "$work/moved")
for n in 1 3 4; do
    expect 0 ranks "$n" eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21
    bpb=$(grep -oE 'bpb=[0-9.]+' <<<"$out")
    same "$bpb" "${first_bpb:=$bpb}" "bits per byte on $n ranks"
done
expect 0 trivote eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21 --codebook-recall
says 'codebook: recall_32=1.000000'
says 'codebook: excess_32=0.000000'
says 'composite: recall_1=1.000000'
recall=$(grep -E '(recall|excess)_' <<<"$out")
for n in 2 3; do
    expect 0 ranks "$n" eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21 --codebook-recall
    same "$(grep -E '(recall|excess)_' <<<"$out")" "$recall" "recall on $n ranks"
done
expect 0 trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 20 --seed 3
expect 0 trivote verify --checkpoint "$checkpoint"
expect 0 trivote audit --config configs/vq-10m.yaml --ranks 2
says 'float tensors: 0'
says 'usage +30000000'

# Refused, each in one sentence that says what fits.
expect 2 trivote train --config $config --run "$work/bad" --set codebook.rows=1
says_once 'codebook.rows is 1, but a choice needs 2 rows'
expect 2 trivote train --config $config --run "$work/bad" --set codebook.width=65
says_once 'codebook.width'
expect 2 trivote train --config $config --run "$work/bad" --set codebook.width=4
says_once 'need a pattern of 5 trits, but codebook.width is 4'
expect 2 ranks 2 train --config $config --run "$work/bad" --set parallel.table_ranks=2
says 'parallel.table_ranks 2 is more than the 1 buckets of tensor .composite.table.'
expect 2 ranks 2 train --config $config --run "$work/bad" --set parallel.table_ranks=3
says 'parallel.table_ranks 3 is more than the 2 ranks'
expect 1 ranks 2 train --config $config --run "$work/moved" --set codebook.rows=3000
says 'codebook.rows: 3000 here, 3001 there'
echo "digest $want"
