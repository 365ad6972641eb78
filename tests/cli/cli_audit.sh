#!/usr/bin/env bash
# The audit: no float tensor, at most 1.30 bytes of state a weight at T32, sums that agree with each other and with a real checkpoint.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

# The number behind a key of the JSON report, wherever it stands.
number() {
    grep -oE "\"$1\": *[-0-9.e+]+" <<<"$out" | head -n 1 | sed -E 's/.*: *//'
}

# audited CONFIG [--set ...]: both forms, within the bounds.
audited() {
    local config=$1
    shift
    expect 0 trivote audit --config "$config" "$@"
    says '^float tensors: 0$'
    expect 0 trivote audit --config "$config" --json "$@"
    same "$(number float_tensors)" 0 "float tensors of $config"
    per_weight=$(number state_bytes_per_weight)
    weights=$(number weights)
    awk -v b="$per_weight" 'BEGIN {exit !(b > 1.2 && b <= 1.30)}' || fail "$config: $per_weight bytes of state a weight"
}

audited "$root/configs/quickstart.yaml"
[ "$weights" -lt 1000000 ] || fail "quickstart has $weights weights, not below a million"
cat >wide.yaml <<'YAML'
model: {width: 512, blocks: 6, heads: 8, context: 256, ffn: 1536, scale_type: T32}
YAML
audited wide.yaml
audited c.yaml

# Bytes by kind follow from the shapes: T_accum holds a byte a weight that moves, T a fifth of a byte, rounded up a row.
T=$(number T)
T_accum=$(number T_accum)
[ "$T_accum" -le "$weights" ] || fail "T_accum has $T_accum bytes for $weights weights"
awk -v t="$T" -v w="$weights" 'BEGIN {exit !(t >= w / 5 && t <= 1.05 * w / 5)}' || fail "T has $T bytes for $weights weights"
sum=$(awk -v a="$T" -v b="$(number E)" -v c="$T_accum" -v d="$(number E_accum)" -v w="$weights" 'BEGIN {printf "%.6f", (a + b + c + d) / w}')
awk -v a="$sum" -v b="$per_weight" 'BEGIN {exit !(a - b < 1e-5 && b - a < 1e-5)}' || fail "kinds sum to $sum a weight, not $per_weight"

# A finer scale costs more exponents, and the bound is not met by chance.
expect 0 trivote audit --config c.yaml --json --set model.scale_type=T4
awk -v b="$(number state_bytes_per_weight)" 'BEGIN {exit !(b > 1.6)}' || fail "T4 costs only $(number state_bytes_per_weight)"

# Sharding the counters takes memory off a rank and leaves the sum.
expect 0 trivote audit --config c.yaml --json --ranks 4 --set vote.exchange=sharded
sharded=$(number state)
expect 0 trivote audit --config c.yaml --json --ranks 4
[ "$sharded" -lt "$(number state)" ] || fail "a rank of four holds as much with sharded counters"
expect 2 trivote audit --config c.yaml --ranks 5
says '1, 2, 3, 4, 6 or 12'

# The promised size of a checkpoint is an upper bound; on a model that is not tiny it is not far off.
expect 0 trivote audit --config wide.yaml --json
awk -v p="$(number checkpoint_bytes)" -v w="$(number weights)" 'BEGIN {exit !(p >= 1.2 * w && p <= 1.5 * w)}' ||
    fail "$(number checkpoint_bytes) bytes are promised for a checkpoint of $(number weights) weights"
expect 0 trivote audit --config c.yaml --json
promised=$(number checkpoint_bytes)
expect 0 trivote train --config c.yaml --run run
real=$(cat "$(newest run)"/* | wc -c)
[ "$real" -le "$promised" ] || fail "a checkpoint of $real bytes, at most $promised were promised"

# Losses by group: what they cost, and names that are none.
expect 0 trivote audit --config c.yaml --set 'loss.cross_entropy_groups=[head, ffn]'
says_not 'passes of the backward'
tables=(--set codebook.rows=100 --set 'loss.commitment_groups=[embed, codebook]')
expect 0 trivote audit --config c.yaml "${tables[@]}"
says 'make 2 passes of the backward'
expect 2 trivote audit --config c.yaml --set 'loss.cross_entropy_groups=[head, fnn]'
says_once "loss.cross_entropy_groups: 'fnn' is no group of this model; take of all, part, embed, sequencer, attention, ffn, head"
expect 2 trivote train --config c.yaml --run other --set codebook.rows=100 --set loss.cross_entropy_groups=head \
    --set loss.commitment_groups=embed
says_once "no loss may move 'codebook.table', but its rows' use is counted with their votes; name codebook in"
