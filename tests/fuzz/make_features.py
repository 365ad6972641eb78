#!/usr/bin/env python3
"""Writes the corpus of fuzz_features: make_features.py FOLDER (needs python3-h5py). All are small, valid HDF5 files; half.h5 and float.h5
are what a user would give, and the others hold something that a reader must refuse."""
import os
import sys

import h5py
import numpy

VALUES = numpy.arange(5 * 3 * 4).reshape(5, 3, 4) / 8
INDEX = numpy.array([[0, 4], [7, 0], [8, 1], [30, 1], [64, 3], [99, 2]])


def write(folder, name, values=VALUES, dtype="<f4", index=INDEX, index_type="<i8", **options):
    with h5py.File(os.path.join(folder, name), "w", libver=options.pop("libver", ("v110", "v110"))) as file:
        file.create_dataset("features", data=values.astype(dtype), track_times=False, **options)
        file.create_dataset("index", data=index.astype(index_type), track_times=False)


def main():
    folder = sys.argv[1]
    write(folder, "float.h5")
    write(folder, "half.h5", dtype="<f2")
    write(folder, "first_format.h5", libver="earliest")
    write(folder, "double.h5", dtype="<f8")
    write(folder, "big_endian.h5", dtype=">f4")
    write(folder, "chunked.h5", chunks=(1, 3, 4))
    write(folder, "packed.h5", chunks=(5, 3, 4), compression="gzip")
    write(folder, "narrow.h5", values=VALUES[:, :, :2])
    write(folder, "short_index.h5", index_type="<i4")
    write(folder, "past_end.h5", index=INDEX + 3)
    write(folder, "not_finite.h5", values=VALUES / numpy.where(VALUES == 1, 0, 1))
    with h5py.File(os.path.join(folder, "linked.h5"), "w", libver=("v110", "v110")) as file:
        file["features"] = h5py.ExternalLink("float.h5", "features")
        file["index"] = h5py.SoftLink("/features")


main()
