#!/usr/bin/env bash
# Codebooks from outside: one digest for any number of ranks and of places, queries that do travel, checkpoints that move between numbers of
# ranks, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-vq.yaml
cd "$root"

same_on_ranks
train 3 two --set parallel.table_ranks=1 --set vote.exchange=sharded
same "$(final_field digest)" "$want" "digest with the tables on 1 of 3 ranks"
train 2 seed --set train.seed=2
differ "$(final_field digest)" "$want" "digest with another seed"

# Queries and votes travel where there are several ranks, and only there; what is learnt does not depend on it.
for part in codebook composite; do
    for name in queries_sent votes_sent wire_bytes; do
        same "$(part_figure r1 $part $name)" 0 "$part: $name of one rank alone"
        for run in r2 r4 two; do
            awk -v x="$(part_figure $run $part $name)" 'BEGIN {exit !(x > 0)}' || fail "$run: $part: no $name"
        done
    done
    for name in commitment rows_touched flips restarts rows_used entropy_bits; do
        same "$(part_figure r4 $part $name)" "$(part_figure r1 $part $name)" "$part: $name on 4 ranks"
    done
    awk -v x="$(part_figure r1 $part restarts)" 'BEGIN {exit !(x > 0)}' || fail "$part: no row starts again"
done

# A checkpoint of 4 ranks goes on with 2, and that one with 1, at the same bits; any number of ranks evaluates it.
moved_over_ranks
bpb=$(grep -oE 'bpb=[0-9.]+' <<<"$out")
# Without what a part adds: another number, the same on any number of ranks.
for n in 1 3; do
    expect 0 ranks "$n" eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21 --without codebook,composite
    muted=$(grep -oE 'bpb=[0-9.]+' <<<"$out")
    same "$muted" "${first_muted:=$muted}" "bits per byte without the codebooks on $n ranks"
done
[ "$muted" != "$bpb" ] || fail "the codebooks add nothing"
expect 2 trivote eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --without codebook,embed
says_once "no part 'embed' that adds"
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
expect 0 trivote inspect --checkpoint "$checkpoint"
says '^codebook +3001 +[1-9][0-9]* +[0-9.]+% +[1-9][0-9.]*$'
says '^composite +499 +[1-9][0-9]* '
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
