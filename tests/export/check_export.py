#!/usr/bin/env python3
"""Compares an exported file with its checkpoint, weight by weight: check_export.py CHECKPOINT FILE

Decodes GGUF, safetensors and the shards from their published layouts, with numpy and h5py alone, and prints
{"tensors": count, "types": {"F16": count, ...}, "weights": count} as JSON.
Exit status 77: h5py is missing.
"""

import json
import os
import struct
import sys

try:
    import h5py
    import numpy
except ImportError as missing:
    print(f"skipped: {missing}; install python3-h5py", file=sys.stderr)
    sys.exit(77)

# ---- the checkpoint: docs/checkpoint.md and docs/numerics.md, section 1


def lattice(code, m):
    return ((1 << m) + code % (1 << m)) << (code >> m)


def read_array(folder, array):
    rows = []
    for block in sorted(array["blocks"], key=lambda one: one["first_row"]):
        with h5py.File(os.path.join(folder, block["file"]), "r") as shard:
            rows.append(shard[block["dataset"]][()])
    data = numpy.concatenate(rows)
    assert data.shape == (array["rows"], array["cols"]), (array["name"], data.shape)
    return data


def decode(folder, trits, exponents):
    cols, m, b, group = trits["logical_cols"], trits["m"], trits["b"], trits["G"]
    packed = read_array(folder, trits).astype(int)
    digits = numpy.stack([packed // 3**j % 3 for j in range(5)], axis=2).reshape(len(packed), -1)[:, :cols] - 1
    table = numpy.array([lattice(code, m) for code in range((7 - m) << m)], dtype=float) * 2.0**b
    scales = table[read_array(folder, exponents).astype(int) - b]
    return digits * numpy.repeat(scales, group, axis=1)[:, :cols]


def read_checkpoint(folder):
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    arrays = {(array["name"], array["part"]): array for array in manifest["arrays"]}
    tensors = {}
    for (name, part), array in arrays.items():
        if part == "T":
            tensors[name] = decode(folder, array, arrays[name, "E"])
        elif part not in ("E", "T_accum", "E_accum"):
            tensors[f"{name}.{part}"] = read_array(folder, array)
    return manifest, tensors


# ---- safetensors: length, JSON, data


def read_safetensors(data):
    (length,) = struct.unpack_from("<Q", data)
    text = data[8 : 8 + length]
    assert length % 8 == 0 and text.startswith(b"{"), "the head is not aligned"
    head = json.loads(text, object_pairs_hook=list)
    assert [key for key, _ in head] == sorted(key for key, _ in head), "keys are not sorted"
    body = data[8 + length :]
    types = {"F32": "<f4", "F16": "<f2", "I8": "i1", "I16": "<i2", "I32": "<i4"}
    tensors, spans = {}, []
    for name, value in head:
        value = dict(value)
        if name == "__metadata__":
            metadata = value
            continue
        begin, end = value["data_offsets"]
        dtype = numpy.dtype(types[value["dtype"]])
        assert begin % dtype.itemsize == 0, (name, "stands askew")
        spans.append((begin, end))
        tensors[name] = value["dtype"], numpy.frombuffer(body[begin:end], dtype=dtype).reshape(value["shape"])
    at = 0
    for begin, end in sorted(spans):
        assert begin == at, "a gap between tensors"
        at = end
    assert at == len(body), "bytes behind the last tensor"
    return metadata, tensors


# ---- GGUF, version 3


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self):
        length = self.take("Q")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self):
        return self.of_kind(self.take("I"))

    def of_kind(self, kind):
        forms = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
        if kind == 9:
            kind, count = self.take("I"), self.take("Q")
            return [self.of_kind(kind) for _ in range(count)]
        return self.text() if kind == 8 else self.take(forms[kind])


def fraction_digits(packed, count):
    """Ternary digits of the fractions byte / 256, the first ones, as trits: [..., count]."""
    digits = []
    fraction = packed.astype(int)
    for _ in range(count):
        fraction = fraction * 3
        digits.append(fraction // 256 - 1)
        fraction = fraction % 256
    return numpy.stack(digits, axis=-2)


def tq1_0(data, rows, cols):
    blocks = numpy.frombuffer(data, dtype=numpy.uint8).reshape(-1, 54)
    trits = numpy.concatenate(
        [
            fraction_digits(blocks[:, 0:32], 5).reshape(-1, 160),
            fraction_digits(blocks[:, 32:48], 5).reshape(-1, 80),
            fraction_digits(blocks[:, 48:52], 4).reshape(-1, 16),
        ],
        axis=1,
    )
    d = blocks[:, 52:54].copy().view("<f2").astype(float)
    return (trits * d).reshape(rows, cols)


def read_gguf(data):
    cursor = Cursor(data)
    assert data[:4] == b"GGUF" and struct.unpack_from("<I", data, 4) == (3,), "no GGUF 3"
    cursor.at = 8
    tensor_count, key_count = cursor.take("Q"), cursor.take("Q")
    metadata = {}
    for _ in range(key_count):
        key = cursor.text()
        assert key not in metadata and key == key.lower(), key
        metadata[key] = cursor.value()
    infos = []
    for _ in range(tensor_count):
        name = cursor.text()
        shape = [cursor.take("Q") for _ in range(cursor.take("I"))][::-1]
        infos.append((name, shape, cursor.take("I"), cursor.take("Q")))
        assert len(name) < 64, name
    alignment = metadata["general.alignment"]
    start = -(-cursor.at // alignment) * alignment
    assert not any(data[cursor.at : start]), "the padding is not zero"
    end, tensors = 0, {}
    plain = {0: ("F32", "<f4"), 1: ("F16", "<f2"), 24: ("I8", "i1"), 25: ("I16", "<i2"), 26: ("I32", "<i4")}
    for name, (rows, cols), kind, offset in infos:
        assert offset % alignment == 0 and offset == -(-end // alignment) * alignment, (name, offset, end)
        if kind == 34:
            end = offset + rows * cols // 256 * 54
            tensors[name] = "TQ1_0", tq1_0(data[start + offset : start + end], rows, cols)
        else:
            dtype = numpy.dtype(plain[kind][1])
            end = offset + rows * cols * dtype.itemsize
            body = data[start + offset : start + end]
            tensors[name] = plain[kind][0], numpy.frombuffer(body, dtype=dtype).reshape(rows, cols)
    assert len(data) == start + -(-end // alignment) * alignment, "the file has another length"
    return metadata, tensors


def check_gguf_metadata(metadata, manifest):
    assert metadata["general.architecture"] == "trivote" and metadata["general.quantization_version"] == 2
    for key in ("step", "digest", "program", "config"):
        assert metadata["trivote." + key] == manifest[key], key
    config = manifest["config"]
    for key in ("width", "blocks", "heads", "context", "ffn", "latent_kv", "head_exponent"):
        assert f"  {key}: {metadata['trivote.model.' + key]}\n" in config, key
    assert metadata["trivote.embedding_length"] == metadata["trivote.model.width"]


def main(folder, path):
    manifest, want = read_checkpoint(folder)
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] == b"GGUF":
        metadata, got = read_gguf(data)
        check_gguf_metadata(metadata, manifest)
    else:
        metadata, got = read_safetensors(data)
        for key in ("step", "digest", "program", "config"):
            assert metadata[key] == str(manifest[key]), key
    assert sorted(got) == sorted(want), sorted(set(got) ^ set(want))
    types = {}
    for name, (kind, values) in got.items():
        types[kind] = types.get(kind, 0) + 1
        assert values.shape == want[name].shape, (name, values.shape, want[name].shape)
        assert numpy.array_equal(values.astype(float), want[name]), (name, kind, "differs")
        assert not numpy.signbit(values[values == 0].astype(float)).any() or kind == "TQ1_0", (name, "has negative zeros")
    weights = sum(values.size for _, values in got.values())
    print(json.dumps({"tensors": len(got), "types": types, "weights": weights}, sort_keys=True))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: check_export.py CHECKPOINT FILE")
    main(*sys.argv[1:])
