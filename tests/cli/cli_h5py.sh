#!/usr/bin/env bash
# Shards are plain HDF5: h5py reads trits and exponents and agrees with `trivote inspect --json`.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

python=
for candidate in python3 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import h5py, numpy' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || skip "no python3 with h5py (Debian's package python3-h5py)"

make_small
expect 0 ranks 3 train --config c.yaml --run run
