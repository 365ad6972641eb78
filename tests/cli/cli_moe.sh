#!/usr/bin/env bash
# A mixture of experts from outside: one digest for any number of ranks and any share of the experts, tokens that do travel, checkpoints that
# move between numbers of ranks, generation, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-moe.yaml
cd "$root"

# The last figure of a block's experts in the metrics: figure RUN NAME
figure() {
    part_figure "$1" block.0.moe "$2"
}

same_on_ranks
train 4 pairs --set parallel.expert_ranks=2
same "$(final_field digest)" "$want" "digest with experts over 2 of 4 ranks"
train 4 whole --set parallel.expert_ranks=1 --set vote.exchange=sharded
same "$(final_field digest)" "$want" "digest with all experts on each rank"
train 1 small --set moe.dense_dispatch_max_tokens=128
same "$(final_field digest)" "$want" "digest with every expert on every token"
train 2 seed --set train.seed=2
differ "$(final_field digest)" "$want" "digest with another seed"

# Tokens travel where experts are shared, and only there; each expert is counted on all ranks alike.
same "$(figure r1 off_rank)" 0 "share of rows that leave one rank alone"
same "$(figure r1 wire_bytes)" 0 "bytes of rows on one rank alone"
for run in r2 r4 pairs; do
    awk -v x="$(figure $run off_rank)" 'BEGIN {exit !(x > 0.2 && x < 0.95)}' || fail "$run: $(figure $run off_rank) of the rows leave their rank"
done
same "$(figure whole off_rank)" 0 "share of rows that leave a rank that holds all experts"
for name in tokens_min tokens_median tokens_max; do
    same "$(figure r4 $name)" "$(figure r1 $name)" "$name on 4 ranks"
done
weights=$(metric "$work/r1" weights)
[ "$(($(metric_sum "$work/r1" flips) * 20))" -ge "$weights" ] || fail "little moves"

# A checkpoint of 4 ranks goes on with 2, and that one with 1, at the same bits; any number of ranks evaluates it.
moved_over_ranks
expect 0 trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 20 --seed 3
expect 0 trivote verify --checkpoint "$checkpoint"
expect 0 trivote audit --config $config
says 'float tensors: 0'
says 'stand on about 10 tokens \(moe\.top_k 2 x 64 a unit / moe\.experts 12\)'
expect 0 trivote audit --config $config --set train.unit_windows=8192 --set moe.top_k=12
says_not 'stand on about'

# The log on request.
train 2 told --set run.log_parts=true --set train.stop_at=2
says 'block\.1\.moe: tokens_min=.*off_rank=.*dispatch_seconds=.*experts_seconds=.*combine_seconds='

# Refused, each in one sentence that says what fits.
expect 2 trivote train --config $config --run "$work/bad" --set moe.top_k=13
says_once 'top_k 13 is more than moe.experts 12'
expect 2 trivote train --config $config --run "$work/bad" --set moe.wire_digits=6
says_once 'moe.wire_digits'
expect 2 trivote train --config $config --run "$work/bad" --set parallel.expert_ranks=5
says_once 'expert_ranks'
expect 2 ranks 4 train --config $config --run "$work/bad" --set parallel.expert_ranks=3
says 'expert_ranks'
expect 1 ranks 2 train --config $config --run "$work/moved" --set moe.experts=8
says 'moe.experts: 8 here, 12 there'
expect 1 trivote train --config $config --run "$work/moved" --set moe.top_k=3
says 'moe.top_k: 3 here, 2 there'
echo "digest $want"
