#!/usr/bin/env python3
"""Writes the corpus of fuzz_shard: make_shards.py FOLDER (needs python3-h5py).

All are small, valid HDF5 files; good.h5 is what a save would write,
and the others hold something that a reader must refuse.
"""

import os
import sys

import h5py
import numpy

ARRAYS = {
    "/tensors/a/T": ("u1", (6, 3)),
    "/tensors/a/E": ("i1", (6, 4)),
    "/tables/u/usage": ("<i2", (3, 2)),
    "/graph/e/src": ("<i4", (5, 1)),
}


def write(folder, name, change=None, **options):
    settings = {"fletcher32": True, "track_times": False, **options}
    with h5py.File(os.path.join(folder, name), "w", libver=("v110", "v110")) as shard:
        for path, (dtype, shape) in ARRAYS.items():
            chunks = None if settings.get("chunks", True) is False else shape
            data = numpy.arange(shape[0] * shape[1]).reshape(shape).astype(dtype)
            shard.create_dataset(path, data=data, **{**settings, "chunks": chunks})
        if change:
            change(shard)


def replaced(**options):
    def change(shard):
        del shard["/tensors/a/T"]
        shard.create_dataset("/tensors/a/T", **options)
    return change


def linked(link):
    def change(shard):
        del shard["/tensors/a/T"]
        shard["/tensors/a/T"] = link
    return change


def grouped(shard):
    del shard["/tensors/a/T"]
    shard.create_group("/tensors/a/T")


def virtual(shard):
    layout = h5py.VirtualLayout(shape=(6, 3), dtype="u1")
    layout[:] = h5py.VirtualSource("good.h5", "/tensors/a/T", shape=(6, 3))
    del shard["/tensors/a/T"]
    shard.create_virtual_dataset("/tensors/a/T", layout)


def main(folder):
    write(folder, "good.h5")
    write(folder, "gzip.h5", compression="gzip")
    write(folder, "shuffle.h5", shuffle=True)
    write(folder, "contiguous.h5", fletcher32=False, chunks=False)
    write(folder, "soft_link.h5", linked(h5py.SoftLink("/tensors/a/E")))
    write(folder, "soft_loop.h5", linked(h5py.SoftLink("/tensors/a/T")))
    write(folder, "external_link.h5", linked(h5py.ExternalLink("good.h5", "/tensors/a/T")))
    write(folder, "virtual.h5", virtual)
    write(folder, "external_storage.h5", replaced(shape=(6, 3), dtype="u1", external=[("good.h5", 0, 18)]))
    write(folder, "wide_type.h5", replaced(shape=(6, 3), dtype="<i4", chunks=(6, 3), fletcher32=True))
    write(folder, "text_type.h5", replaced(shape=(6, 3), dtype=h5py.string_dtype(), chunks=(6, 3)))
    write(folder, "large_chunks.h5", replaced(shape=(6, 3), dtype="u1", maxshape=(None, None), chunks=(1 << 14, 1 << 16),
                                             fletcher32=True))
    write(folder, "other_shape.h5", replaced(shape=(18,), dtype="u1", chunks=(18,), fletcher32=True))
    write(folder, "many_axes.h5", replaced(shape=(1,) * 32, dtype="u1", chunks=(1,) * 32, fletcher32=True))
    write(folder, "huge_shape.h5", replaced(shape=(1 << 60, 4), dtype="u1", chunks=(6, 3), fletcher32=True))
    write(folder, "scalar.h5", replaced(shape=(), dtype="u1"))
    write(folder, "group.h5", grouped)
    write(folder, "cycle.h5", linked(h5py.SoftLink("/tensors")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_shards.py FOLDER")
    main(sys.argv[1])
