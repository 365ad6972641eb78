#!/usr/bin/env bash
# generate behind an image or a sound: the text follows the item, the item stays in front when the window moves on, and what is refused.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
config=tests/data/invariance-modality.yaml
images=tests/data/images.h5
sounds=tests/data/sounds.h5
cd "$root"

# A text of 61 equal letters behind each image, whose features are a code of that letter. Its last 2000 bytes are held out.
LC_ALL=C tr '\n' '~' <tests/data/invariance.txt | LC_ALL=C fold -b -w 61 |
    awk '{c = substr($0, 1, 1); for (i = 0; i < 61; i++) printf "%s", c}' >"$work/told.txt"
learn=(--set train.steps=200 --set train.units=2 --set train.unit_windows=32 --set update.step=8 --set update.schedule=linear
    --set update.exponent_step=0.02 --set update.exponent_threshold=8 --set update.rho_first=0.01 --set update.rho_last=0.0005
    --set checkpoint.every=200 --set train.eval_every=200)
train 1 told "${learn[@]}" --set data.train="[$work/told.txt]" --set model.context=64 --set modality.audio_width=0 --set data.audio_features=
told=$(newest "$work/told")

# follows FIRST LAST: of these items, how many are followed by eight of their letter, with nothing but the image to go on.
follows() {
    local item letter
    hits=0
    for ((item = $1; item <= $2; item++)); do
        letter=$(head -c $((item * 61 + 1)) "$work/told.txt" | tail -c 1)
        expect 0 trivote generate --checkpoint "$told" --image-features $images --image-item "$item" --prompt "" --bytes 8 --temperature 0
        [ "$out" != "$(printf '%s' "$letter$letter$letter$letter$letter$letter$letter$letter")" ] || hits=$((hits + 1))
    done
}
follows 0 29
seen=$hits
follows 234 263
echo "of 30 images of the training text $seen tell their letter, of 30 held-out ones $hits"
[ "$seen" -ge 24 ] || fail "$seen of 30 images of the training text tell their letter"
[ "$hits" -ge 20 ] || fail "$hits of 30 held-out images tell their letter"

# With images and sounds, in windows of 16 tokens: 3 of an image, 4 of a sound.
train 2 both "${learn[@]}"
checkpoint=$(newest "$work/both")
generate() {
    expect 0 trivote generate --checkpoint "$checkpoint" --seed 3 "$@"
}
image=(--image-features $images --image-item)
sound=(--audio-features $sounds --audio-item)
generate --prompt "the " --bytes 60
plain=$out
generate --prompt "the " --bytes 60 "${image[@]}" 2
two=$out
differ "$two" "$plain" "with and without an image"
generate --prompt "the " --bytes 60 "${image[@]}" 2
same "$out" "$two" "the same image"
generate --prompt "the " --bytes 60 "${image[@]}" 3
differ "$out" "$two" "another image"
generate --prompt "the " --bytes 60 "${sound[@]}" 2
sounded=$out
differ "$sounded" "$plain" "with and without a sound"
generate --prompt "the " --bytes 60 "${sound[@]}" 5
differ "$out" "$sounded" "another sound"
generate --prompt "the " --bytes 60 "${image[@]}" 2 "${sound[@]}" 2
differ "$out" "$sounded" "a sound, and an image before it"
differ "$out" "$two" "an image, and a sound behind it"
[[ $out == "the "* ]] || fail "the prompt is not in front"
size=$(trivote generate --checkpoint "$checkpoint" --prompt "" --bytes 20 "${image[@]}" 2 2>/dev/null | wc -c)
same "$size" 21 "bytes of output behind an image alone"

# The window is full: the items stay, and the last 9 bytes behind them are seen.
behind() {
    generate --prompt "$1" --bytes 60 "${@:2}"
    out=${out#"$1"}
}
both=("${image[@]}" 2 "${sound[@]}" 2)
behind "in the beginning God" "${both[@]}"
full=$out
behind "xyz ginning God" "${both[@]}"
same "$out" "$full" "what left the window"
behind "in the beginning was" "${both[@]}"
differ "$out" "$full" "what is in the window"
behind "in the beginning God" "${image[@]}" 3 "${sound[@]}" 2
differ "$out" "$full" "another image in front of a full window"
behind "in the beginning God" "${image[@]}" 2 "${sound[@]}" 3
differ "$out" "$full" "another sound in front of a full window"

# refused CODE PATTERN OPTION...
refused() {
    expect "$1" trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 5 "${@:3}"
    says_once "$2"
}
items=$(($(wc -c <tests/data/invariance.txt) / 61 + 1))
refused 2 "image-item takes a number from 0 to $((items - 1)), the last item of $images, not $items" "${image[@]}" $items
refused 2 'audio-item takes a number from 0 to [0-9]+, the last item of .*sounds.h5, not -1' "${sound[@]}" -1
refused 2 'image-features needs --image-item N' --image-features $images
refused 2 'audio-item needs --audio-features FILE' --audio-item 2
refused 2 'image-item needs --image-features FILE' --image-features '' --image-item 2
refused 1 'cannot open the features nowhere.h5: No such file' --image-features nowhere.h5 --image-item 0
refused 1 'sounds.h5: features of 10 values \(F\), but modality.image_width is 24' --image-features $sounds --image-item 0
refused 1 'invariance.txt are no HDF5 file' --audio-features tests/data/invariance.txt --audio-item 0
checkpoint=$told
refused 2 "sounds.h5: the model has no part 'audio' that could take features; leave them out" "${sound[@]}" 0
refused 2 'prompt is empty; give at least one byte' --prompt ""
