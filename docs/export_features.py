#!/usr/bin/env python3
"""Features of images and sounds for Trivote, as docs/features.md lays them out: export_features.py COMMAND ...

    images LIST OUT [--model google/vit-base-patch16-224] [--frames 16]    a ViT of Hugging Face's transformers
    sounds LIST OUT [--model openai/whisper-small] [--frames 32]           the encoder of a Whisper
    made   TEXT OUT [--width 32] [--frames 2] [--every 61] [--seed 1] [--float32]
           no encoder: frame f of the item at byte p is a random code of the text's byte p + f, for tests and first trials

LIST has a line for each item: the byte of the text that it stands in front of, a tab, the file. Needs numpy and h5py; images also torch,
transformers and pillow; sounds torch, transformers and librosa. Then, in the config:

    modality: {image_width: F, image_frames: frames}    and    data: {image_features: OUT}      (here on one line; see docs/config.md)
"""
import argparse
import sys

import h5py
import numpy


def stop(message):
    sys.exit(f"export_features.py: {message}")


def write_features(path, items, index, frames, width, dtype="float16"):
    """`items` yields [frames, width] arrays, one for each item; `index` is [(position, item), ...]."""
    index = sorted((int(position), int(item)) for position, item in index)
    count = 1 + max((item for _, item in index), default=-1)
    if count == 0:
        stop(f"{path}: there are no items")
    for (one, _), (two, _) in zip(index, index[1:]):
        if one == two:
            stop(f"{path}: two items stand at byte {one}; a place has one image and one sound at most")
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        values = file.create_dataset("features", (count, frames, width), dtype="<f2" if dtype == "float16" else "<f4")
        written = 0
        for i, item in enumerate(items):
            item = numpy.asarray(item)
            if item.shape != (frames, width):
                stop(f"{path}: item {i} has shape {item.shape} in place of {(frames, width)}")
            if not numpy.isfinite(item.astype(dtype)).all():
                stop(f"{path}: item {i} has a value that is NaN, Inf or too large for {dtype}")
            values[i] = item
            written = i + 1
        if written != count:
            stop(f"{path}: {written} items in place of the index's {count}")
        file.create_dataset("index", data=numpy.array(index, dtype="<i8"))
    print(f"{path}: {count} items of {frames} x {width} {dtype}, {len(index)} places")


def read_list(path):
    """[(position, file), ...]"""
    found = []
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        position, tab, name = line.rstrip("\n").partition("\t")
        if not tab or not position.isdigit() or not name:
            stop(f"{path}:{number}: no 'BYTE<tab>FILE'")
        found.append((int(position), name))
    return found


def pool(states, frames):
    """[n, F] to [frames, F]: means of n / frames neighbours each."""
    edges = numpy.linspace(0, len(states), frames + 1).astype(int)
    if len(states) < frames:
        stop(f"the encoder gives {len(states)} features an item, fewer than --frames {frames}")
    return numpy.stack([states[a:b].mean(axis=0) for a, b in zip(edges, edges[1:])])


def export(args, width, encode):
    places = read_list(args.source)
    items = (pool(encode(name), args.frames) for _, name in places)
    write_features(args.out, items, [(position, i) for i, (position, _) in enumerate(places)], args.frames, width)


def export_images(args):
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, ViTModel

    prepare, model = AutoImageProcessor.from_pretrained(args.model), ViTModel.from_pretrained(args.model).eval()

    def encode(name):
        with torch.no_grad():
            pixels = prepare(Image.open(name).convert("RGB"), return_tensors="pt")
            return model(**pixels).last_hidden_state[0, 1:].numpy()  # the patches, without the class token

    export(args, model.config.hidden_size, encode)


def export_sounds(args):
    import librosa
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    prepare, model = WhisperFeatureExtractor.from_pretrained(args.model), WhisperModel.from_pretrained(args.model).eval()

    def encode(name):
        sound, rate = librosa.load(name, sr=16000)
        with torch.no_grad():
            mel = prepare(sound, sampling_rate=rate, return_tensors="pt").input_features
            states = model.encoder(mel).last_hidden_state[0].numpy()
        heard = max(args.frames, round(len(states) * min(len(sound) / rate / 30, 1)))  # an input spans 30 s, mostly padding
        return states[:heard]

    export(args, model.config.d_model, encode)


def export_made(args):
    text = open(args.source, "rb").read()
    if len(text) <= args.frames:
        stop(f"{args.source}: no more than {args.frames} bytes")
    codes = numpy.random.default_rng(args.seed).choice([-1.0, 1.0], size=(256, args.width))
    places = range(0, len(text) - args.frames, args.every)
    items = (codes[list(text[p : p + args.frames])] for p in places)
    write_features(args.out, items, [(p, i) for i, p in enumerate(places)], args.frames, args.width,
                   "float32" if args.float32 else "float16")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, frames, model in (("images", export_images, 16, "google/vit-base-patch16-224"),
                                     ("sounds", export_sounds, 32, "openai/whisper-small"), ("made", export_made, 2, None)):
        command = commands.add_parser(name)
        command.add_argument("source", metavar="LIST" if model else "TEXT")
        command.add_argument("out", metavar="OUT")
        command.add_argument("--frames", type=int, default=frames)
        command.set_defaults(run=run)
        if model:
            command.add_argument("--model", default=model)
            continue
        command.add_argument("--width", type=int, default=32)
        command.add_argument("--every", type=int, default=61)
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--float32", action="store_true")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
