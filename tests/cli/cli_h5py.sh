#!/usr/bin/env bash
# Shards are plain HDF5: h5py reads trits and exponents and agrees with `trivote inspect --json`.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

python=$(python_with_h5py) || true
[ -n "$python" ] || skip "no python3 with h5py (Debian's package python3-h5py)"

make_small
expect 0 ranks 3 train --config c.yaml --run run
checkpoint=$(newest run)
trivote inspect --checkpoint "$checkpoint" --json >inspect.json
"$python" "$root/tests/io/read_shard.py" "$checkpoint" >h5py.json

expect 0 "$python" - inspect.json h5py.json <<'PYTHON'
import json
import sys

ours, theirs = ({name: value for name, value in json.load(open(path))["tensors"].items()} for path in sys.argv[1:])
assert sorted(ours) == sorted(theirs), (sorted(ours), sorted(theirs))
assert len(ours) > 8, len(ours)
for name, tensor in ours.items():
    for key in ("rows", "cols", "minus", "zero", "plus", "exponents"):
        assert tensor[key] == theirs[name][key], (name, key, tensor[key], theirs[name][key])
    assert tensor["minus"] + tensor["zero"] + tensor["plus"] == tensor["rows"] * tensor["cols"], name
    assert sum(tensor["exponents"].values()) == tensor["rows"] * -(-tensor["cols"] // tensor["G"]), name
assert any(len(tensor["exponents"]) > 1 for tensor in ours.values()), "no exponent has moved"
print(len(ours), "tensors agree")
PYTHON
echo "$out"

# The five lines of README.md do what they say.
awk '/^    import h5py/ {on = 1} on && NF == 0 {exit} on {sub(/^    /, ""); print}' "$root/README.md" |
    sed -e "s|runs/quickstart/step-000000400/shard-00000-of-00002.h5|$checkpoint/shard-00000-of-00003.h5|" -e 's/:128\]/:64]/g' >readme.py
[ "$(wc -l <readme.py)" -eq 5 ] || fail "README.md does not show five lines of Python"
cat >>readme.py <<'PYTHON'
assert set(np.unique(trits)) <= {-1, 0, 1} and trits.shape == (22, 64) == weights.shape, trits.shape
PYTHON
expect 0 "$python" readme.py
