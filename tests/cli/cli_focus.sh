#!/usr/bin/env bash
# The conversation's cells from outside: one digest for any number of ranks, carried states that go with their units when a checkpoint moves
# between numbers of ranks, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-focus.yaml
cd "$root"

# The last figure of the part in the metrics: figure RUN NAME
figure() {
    part_figure "$1" focus "$2"
}

same_on_ranks
train 3 sharded --set vote.exchange=sharded
same "$(final_field digest)" "$want" "digest with the sharded exchange"
train 1 other --set data.order=random
differ "$(final_field digest)" "$want" "digest with another order of the text"
for name in topic reset dampen forget_fast forget_slow; do
    same "$(figure r4 $name)" "$(figure r1 $name)" "$name on 4 ranks"
    awk -v x="$(figure r1 $name)" 'BEGIN {exit !(x > 0 && x < 1)}' || fail "$name is no share"
done

# The same with a table behind the slow cell, whose rows and votes travel.
code=(--set focus.codebook_rows=61 --set codebook.bucket_rows=8 --set codebook.exact_rows=8)
train 1 code1 "${code[@]}"
of_code=$(final_field digest)
differ "$of_code" "$want" "digest with a codebook"
train 3 code3 "${code[@]}" --set train.stop_at=9
train 2 code3 "${code[@]}"
same "$(final_field digest)" "$of_code" "digest with a codebook after 3 and 2 ranks"
awk -v x="$(figure code3 rows_touched)" 'BEGIN {exit !(x > 0)}' || fail "no row of the codebook is used"

# A checkpoint of 4 ranks goes on with 2, that one with 3 and that one with 1, at the same bits; any number of ranks evaluates it.
train 4 moved --set train.stop_at=6
train 2 moved --set train.stop_at=11
train 3 moved --set train.stop_at=17
train 1 moved
same "$(final_field digest)" "$want" "digest after 4, 2, 3 and 1 ranks"
same_evaluation
bpb=$(grep -oE 'bpb=[0-9.]+' <<<"$out")
expect 0 trivote eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21 --without focus
differ "$(grep -oE 'bpb=[0-9.]+' <<<"$out")" "$bpb" "bits per byte without the cells"
expect 0 trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 20 --seed 3
expect 0 trivote verify --checkpoint "$checkpoint"
expect 0 trivote audit --config configs/focus-quickstart.yaml --ranks 2
says 'focus'
says 'float tensors: 0'

# Refused, each in one sentence that says what fits.
refuse focus.segment=5 'model.context = 16 is no multiple of focus.segment = 5; take a context of 20 or another segment'
refuse focus.segment=16 'model.context = 16 is one segment of focus.segment = 16'
refuse focus.bptt=0 "key 'focus.bptt': 0 is outside 1..65536"
refuse focus.codebook_rows=1 'focus.codebook_rows is 1, but a choice needs 2 rows'
refuse data.order=sorted "data.order"
expect 1 trivote train --config $config --run "$work/moved" --set focus.width=8
says 'focus.width: 8 here, 12 there'
expect 1 trivote train --config $config --run "$work/moved" --set focus.width=0
says 'focus.width: 0 here, 12 there'
expect 1 trivote train --config $config --run "$work/moved" --set data.order=random
says 'data.order: random here, stream there'
echo "digest $want"
