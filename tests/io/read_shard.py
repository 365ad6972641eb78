#!/usr/bin/env python3
"""Counts the trits and exponents of a checkpoint with h5py, independently of trivote: read_shard.py FOLDER

Prints {"tensors": {name: {"rows", "cols", "minus", "zero", "plus", "exponents": {"-3": count, ...}}}} as JSON.
Exit status 77: h5py is missing.
"""

import json
import os
import sys

try:
    import h5py
    import numpy
except ImportError as missing:
    print(f"skipped: {missing}; install python3-h5py", file=sys.stderr)
    sys.exit(77)


def blocks(folder, array):
    """The array's blocks as the shards hold them."""
    for block in array["blocks"]:
        with h5py.File(os.path.join(folder, block["file"]), "r") as shard:
            yield shard[block["dataset"]][()]


def unpack(packed, cols):
    """[rows, ceil(cols / 5)] bytes of five base-3 digits, lowest first, to [rows, cols] trits -1, 0, +1."""
    digits = packed[:, :, None] // 3 ** numpy.arange(5) % 3
    return digits.reshape(len(packed), -1)[:, :cols].astype(int) - 1


def main(folder):
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    tensors = {}
    for array in manifest["arrays"]:
        if array["group"] != "tensors" or array["part"] not in ("T", "E"):
            continue
        tensor = tensors.setdefault(array["name"], {})
        if array["part"] == "T":
            counts = {-1: 0, 0: 0, 1: 0}
            for packed in blocks(folder, array):
                trits = unpack(packed, array["logical_cols"])
                for value in counts:
                    counts[value] += int((trits == value).sum())
            tensor.update(rows=array["rows"], cols=array["logical_cols"])
            tensor.update(minus=counts[-1], zero=counts[0], plus=counts[1])
        else:
            histogram = {}
            for exponents in blocks(folder, array):
                for value, count in zip(*numpy.unique(exponents, return_counts=True)):
                    histogram[int(value)] = histogram.get(int(value), 0) + int(count)
            tensor["exponents"] = {str(value): histogram[value] for value in sorted(histogram)}
    print(json.dumps({"tensors": tensors}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: read_shard.py FOLDER")
    main(sys.argv[1])
