#!/usr/bin/env bash
# Exported files hold every weight exactly, by decoders written from the published layouts; what fails leaves nothing behind.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

python=$(python_with_h5py) || true

# checked RUN FORMAT TYPES: the newest checkpoint of the run, exported and decoded, with tensors of these types.
checked() {
    local checkpoint file=$1.$2
    checkpoint=$(newest "$1")
    expect 0 trivote export --checkpoint "$checkpoint" --format "$2" --out "$file"
    says "^$file: [0-9]+ tensors"
    [ ! -e "$file.tmp" ] || fail "$file.tmp is left"
    [ -n "$python" ] || return 0
    expect 0 "$python" "$root/tests/export/check_export.py" "$checkpoint" "$file"
    for kind in $3; do
        says "\"$kind\": [1-9]"
    done
    echo "$file: $out"
}

# Exponents that have moved, and groups that do not divide a row.
make_small
expect 0 ranks 3 train --config c.yaml --run moved
checked moved gguf F16
says_not TQ1_0
checked moved safetensors F16

# Exponents at rest: rows of 256 and 512 weights are TQ1_0, others F16. Four mantissa bits' worth of scales, too.
still=(--set update.exponent_step=0 --set model.width=256 --set model.ffn=512 --set train.steps=2 --set checkpoint.every=2)
expect 0 trivote train --config c.yaml --run still "${still[@]}"
checked still gguf 'TQ1_0'
checked still safetensors F16
expect 0 trivote train --config c.yaml --run odd "${still[@]}" --set model.scale_type=T6 --set model.scale_mantissa_bits=3 --set model.ffn=100
checked odd gguf 'TQ1_0 F16'
expect 0 trivote train --config c.yaml --run lattice --set model.scale_type=T6 --set model.scale_mantissa_bits=2
checked lattice gguf F16
checked lattice safetensors F16

# Experts and codebooks, with their side state.
expect 0 ranks 2 train --config c.yaml --run experts --set moe.experts=4 --set codebook.rows=300 --set codebook.width=24
checked experts gguf 'F16 I16'
checked experts safetensors 'F16 I16'

# An existing file is left alone; --force replaces a file, and nothing else.
checkpoint=$(newest moved)
export_to() {
    trivote export --checkpoint "$checkpoint" --format gguf --out "$@"
}
echo mine >there
expect 2 export_to there
says_once '--force'
same "$(cat there)" mine "a file that was there"
expect 0 export_to there --force
cmp there moved.gguf || fail "--force wrote another file"
mkdir folder
ln -s there link
for name in folder link; do
    expect 2 export_to $name --force
    says_once 'no regular file'
done
expect 1 export_to nowhere/file
says_once 'nowhere/file'
expect 2 trivote export --checkpoint "$checkpoint" --format onnx --out x
says_once 'gguf or safetensors'
expect 2 trivote export --checkpoint "$checkpoint" --format gguf
says '--out'

nothing_of() {
    if [ -e "$1" ] || [ -e "$1.tmp" ]; then
        fail "a failed export left $1"
    fi
}

# A disk that fills, at the first write and later, and a kill: the old file stays, and no half one.
for hit in 1 2 40; do
    TV_FAULT=export.write:hit=$hit:errno=ENOSPC expect 1 export_to there --force
    says_once 'of [0-9]+ bytes: No space left on device; .*free some space'
    [ ! -e there.tmp ] || fail "there.tmp is left"
    cmp there moved.gguf || fail "a full disk changed the file that was there"
    TV_FAULT=export.write:hit=$hit:errno=EIO expect 1 export_to absent
    says_once 'Input/output error'
    nothing_of absent
done
limited() {
    (
        trap '' XFSZ
        ulimit -f 16
        exec "$program" export --checkpoint "$checkpoint" --format safetensors --out limited
    )
}
expect 1 limited
says_once 'File too large'
nothing_of limited
TV_FAULT=export.write:hit=40:kill expect 137 export_to there --force
cmp there moved.gguf || fail "a kill changed the file that was there"
expect 0 export_to there --force

# A damaged checkpoint is refused before anything is written.
cp -r "$checkpoint" damaged
flip damaged/shard-00000-of-00003.h5 3000
expect 1 trivote export --checkpoint damaged --format gguf --out from_damaged
[ ! -e from_damaged ] || fail "a damaged checkpoint was exported"

[ -n "$python" ] || skip "no python3 with h5py (Debian's package python3-h5py): the files were not decoded"
