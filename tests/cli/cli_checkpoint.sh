#!/usr/bin/env bash
# digest, verify and inspect; every kind of damage is named, and resuming passes over a damaged checkpoint to an older one.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

expect 0 ranks 2 train --config c.yaml --run run
want=$(final_field digest)
last=$(newest run)
same "$last" run/step-000000008 "newest checkpoint"
expect 0 trivote digest --checkpoint "$last"
same "$out" "$want" "digest command and final line"
expect 0 trivote verify --checkpoint "$last"
expect 0 trivote verify --checkpoint "$last" --json
expect 0 trivote inspect --checkpoint "$last"
says 'embed'
expect 0 trivote inspect --checkpoint "$last" --json
says '"step": *8'
says "$want"
[ "$(find "$last" -name '*.h5' | wc -l)" -eq 2 ] || fail "two ranks did not write two shards"

# The list of checksums is in the format of the xxhsum tool.
if command -v xxhsum >/dev/null; then
    (cd "$last" && xxhsum --quiet -c checksums.xxh128) || fail "xxhsum disagrees with checksums.xxh128"
fi

# damaged WHAT PATTERN: the copy in bad/ must be refused with exit code 1 and one message.
damaged() {
    local what=$1 pattern=$2
    expect 1 trivote verify --checkpoint bad
    says "$pattern"
    expect 1 trivote digest --checkpoint bad
    expect 1 trivote eval --checkpoint bad --data text.txt
    expect 1 trivote train --config c.yaml --run "resumed" --resume bad
    says_once "$pattern"
    [ "$(find resumed -name 'step-*' | wc -l)" -eq 0 ] || fail "$what: a checkpoint came out of a damaged one"
    rm -rf bad resumed
}
copy() {
    cp -a "$last" bad
    shard=$(find bad -name 'shard-00001*.h5')
    size=$(wc -c <"$shard")
}
copy; flip "$shard" $((size / 2)); damaged "a flipped bit in a shard" 'shard-00001'
copy; flip "$shard" 8; damaged "a flipped bit at a shard's start" 'shard-00001'
copy; flip "$shard" $((size - 1)); damaged "a flipped bit at a shard's end" 'shard-00001'
copy; truncate -s $((size - 1)) "$shard"; damaged "a truncated shard" 'shard-00001'
copy; rm "$shard"; damaged "a missing shard" 'shard-00001'
copy; mv "$shard" real.h5; ln -s ../real.h5 "$shard"; damaged "a symlink for a shard" 'shard-00001'
copy; flip bad/manifest.json $(($(wc -c <bad/manifest.json) / 2)); damaged "a flipped bit in the manifest" 'manifest'
copy; flip bad/checksums.xxh128 3; damaged "a flipped bit in the list of checksums" 'checksum|manifest|shard'
copy; rm bad/manifest.json; damaged "a missing manifest" 'manifest'
copy; : >bad/manifest.json; damaged "an empty manifest" 'manifest'

# Auto-resume says why it passes over the damaged newest one, and the older one leads to the same end.
rm -rf run
expect 0 trivote train --config c.yaml --run run
damaged_shard=$(find "$(newest run)" -name '*.h5' | head -n 1)
flip "$damaged_shard" $(($(wc -c <"$damaged_shard") / 2))
expect 0 ranks 3 train --config c.yaml --run run2
rm -rf run2/step-000000008
cp -a run/step-000000008 run2/
expect 0 ranks 2 train --config c.yaml --run run2 --resume auto --set train.stop_at=6
says 'step-000000008'
says 'resumed.*step-000000004'

# keep: only so many stay.
expect 0 trivote train --config c.yaml --run kept --set checkpoint.every=1 --set checkpoint.keep=2
same "$(find kept -maxdepth 1 -name 'step-*' | sort | tr '\n' ' ')" "kept/step-000000007 kept/step-000000008 " "checkpoints kept"
