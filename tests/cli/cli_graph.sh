#!/usr/bin/env bash
# The graph of motifs from outside: one digest for any number of ranks and of places, rows, lists and records that do travel, checkpoints that move
# between numbers of ranks, the index in place of the search, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-graph.yaml
cd "$root"

# The last figure of the part in the metrics: figure RUN NAME
figure() {
    part_figure "$1" graph "$2"
}

same_on_ranks
train 3 one --set parallel.table_ranks=1 --set vote.exchange=sharded
same "$(final_field digest)" "$want" "digest with the edges on 1 of 3 ranks"
train 2 dense --set graph.dense=true
same "$(final_field digest)" "$want" "digest with an index"

# Rows, lists and records travel where there are several ranks, and only there; what is learnt does not depend on it.
for name in rows_asked lists_asked records_sent wire_bytes; do
    same "$(figure r1 $name)" 0 "$name of one rank alone"
    for run in r2 r4 one; do
        awk -v x="$(figure $run $name)" 'BEGIN {exit !(x > 0)}' || fail "$run: no $name"
    done
done
for name in edges mean_score made replaced evicted attr_flips nodes; do
    same "$(figure r4 $name)" "$(figure r1 $name)" "$name on 4 ranks"
done
for name in edges made replaced; do
    awk -v x="$(figure r1 $name)" 'BEGIN {exit !(x > 0)}' || fail "no $name"
done

# A checkpoint of 4 ranks goes on with 2, and that one with 1, at the same bits; any number of ranks evaluates it.
moved_over_ranks
bpb=$(grep -oE 'bpb=[0-9.]+' <<<"$out")
expect 0 trivote eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21 --without graph
[ "$(grep -oE 'bpb=[0-9.]+' <<<"$out")" != "$bpb" ] || fail "the part adds nothing"
expect 0 trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 20 --seed 3
expect 0 trivote verify --checkpoint "$checkpoint"
expect 0 trivote audit --config configs/graph-quickstart.yaml --ranks 2
says 'graph'
says 'float tensors: 0'

# A rank that fails between the exchanges ends all of them; none waits for ever.
got=0
out=$(TV_FAULT=graph.edges:rank=1:hit=3:errno=EIO ranks 3 train --config $config --run "$work/broken" 2>&1) || got=$?
same "$got" 1 "exit code of a run whose rank 1 failed"
says_once 'error: rank 1: fail point graph.edges: Input/output error'

# Refused, each in one sentence that says what fits.
refuse codebook.rows=0 'graph.hops 2 needs the motifs of a codebook, but codebook.rows is 0'
refuse graph.width=31 'graph.width 31 is not codebook.width 32'
refuse graph.hops=5 "key 'graph.hops': 5 is outside 0..4"
refuse graph.max_edges=2 'graph.max_edges 2 is less than graph.edges_per_node 3'
expect 2 trivote train --config $config --run "$work/bad" --set codebook.rows=70000 --set graph.dense=true
says_once 'graph.dense keeps an index of codebook.rows 70000, more than 65536'
expect 1 trivote train --config $config --run "$work/moved" --set graph.max_edges=401
says 'graph.max_edges: 401 here, 400 there'
expect 1 trivote train --config $config --run "$work/moved" --set graph.hops=0
says 'graph.hops: 0 here, 2 there'
echo "digest $want"
