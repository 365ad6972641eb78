#!/usr/bin/env bash
# Features of images and sounds from outside: one digest for any number of ranks, checkpoints that move between numbers of ranks, evaluation
# with and without features, files made by docs/export_features.py, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-modality.yaml
cd "$root"

same_on_ranks
for part in image audio; do
    for name in gate gate_votes frames; do
        same "$(part_figure r4 $part $name)" "$(part_figure r1 $part $name)" "$part: $name on 4 ranks"
    done
    awk -v x="$(part_figure r1 $part frames)" 'BEGIN {exit !(x > 0)}' || fail "$part: no features"
done

moved_over_ranks
expect 0 trivote verify --checkpoint "$checkpoint"
expect 0 trivote audit --config "$config"
says '^modality +1122'
says 'float tensors: 0'
expect 0 trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 20 --seed 3

# A text evaluated with its features, on any number of ranks alike; each part can be left out.
evaluate() {
    local ranks=$1
    shift
    expect 0 ranks "$ranks" eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 300 "$@"
    grep -oE 'bpb=[0-9.]+ .* bytes=[0-9]+' <<<"$out"
}
features=(--image-features tests/data/images.h5 --audio-features tests/data/sounds.h5)
plain=$(evaluate 1)
all=$(evaluate 1 "${features[@]}")
same "$(evaluate 3 "${features[@]}")" "$all" "with features on 3 ranks"
differ "$all" "$plain" "with and without features"
differ "$(evaluate 1 "${features[@]}" --without image)" "$all" "without the part image"
bytes() { grep -oE '[0-9]+$' <<<"$1"; }
[ "$(bytes "$all")" -lt "$(bytes "$plain")" ] || fail "features take no place of text: $all, $plain"

# Refused, each in one sentence that says what fits.
refuse modality.image_width=0 'data.image_features names a file, but modality.image_width is 0'
refuse data.image_features= 'modality.image_width is 24, but data.image_features names no file'
refuse modality.image_frames=15 'features and their marks take 20 of model.context 16 and leave no text'
refuse_file() {
    expect "${3:-1}" trivote train --config "$config" --run "$work/bad" --set "$1"
    says_once "$2"
}
refuse_file modality.image_width=20 'images.h5: features of 24 values \(F\), but modality.image_width is 20'
refuse_file modality.audio_frames=2 'sounds.h5: items of 3 frames, but modality.audio_frames is 2'
refuse_file data.image_features=nowhere.h5 'cannot open the features nowhere.h5: No such file'
refuse_file data.audio_features=tests/data/invariance.txt 'invariance.txt are no HDF5 file'
expect 2 trivote eval --checkpoint "$(newest "$work/moved")" --data tests/data/invariance.txt --image-features
head -c 9000 tests/data/invariance.txt >"$work/short.txt"
expect 1 trivote eval --checkpoint "$checkpoint" --data "$work/short.txt" --image-features tests/data/images.h5
says_once 'past the end of the text.s 9000 bytes'
expect 1 trivote train --config "$config" --run "$work/moved" --set modality.audio_width=0 --set data.audio_features=
says 'modality.audio_width: 0 here, 10 there'
expect 1 trivote train --config "$config" --run "$work/moved" --set data.audio_features=tests/data/other.h5
says 'cannot open the features tests/data/other.h5'
train 1 dense --set modality.image_width=0 --set data.image_features= --set modality.audio_width=0 --set data.audio_features=
expect 2 trivote eval --checkpoint "$(newest "$work/dense")" --data tests/data/invariance.txt --image-features tests/data/images.h5
says "the model has no part 'image'"

# A read that fails stops all ranks; nothing of the step is applied.
got=0
out=$(TV_FAULT=features.read:rank=1:hit=9:errno=EIO ranks 3 train --config $config --run "$work/broken" 2>&1) || got=$?
[ "$got" -ne 0 ] || fail "a run whose rank 1 failed ends well"

# The script's files: other features are another run; a value that is no number stops the step that reads it.
python=$(python_with_h5py) || skip "the files of docs/export_features.py: no python3 with h5py (Debian's package python3-h5py); all else passed"
made() { expect 0 "$python" docs/export_features.py made tests/data/invariance.txt "$work/$1" --width 24 --frames 2 "${@:2}"; }
made same.h5 --every 61
expect 1 "$python" docs/export_features.py made tests/data/invariance.txt "$work/none.h5" --frames 99999
says 'no more than 99999 bytes'
made other.h5 --every 61 --seed 9
train 1 again --set data.image_features="$work/same.h5"
same "$(final_field digest)" "$want" "digest with the script's file"
expect 1 trivote train --config "$config" --run "$work/moved" --set data.image_features="$work/other.h5"
says 'another training text or other features'
expect 0 "$python" -c "import h5py, sys; h5py.File(sys.argv[1], 'r+')['features'][:, 1, 3] = float('nan')" "$work/other.h5"
expect 1 trivote train --config "$config" --run "$work/nan" --set data.image_features="$work/other.h5"
says_once 'other.h5: item [0-9]+, frame 1 holds NaN'
echo "digest $want"
