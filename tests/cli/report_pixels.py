"""Counts the curves' colours in a screenshot of a report: report_pixels.py PICTURE WIDTH. Reads PNG with the standard library alone."""
import struct
import sys
import zlib

COLORS = {"blue": (0x00, 0x72, 0xB2), "vermilion": (0xD5, 0x5E, 0x00), "green": (0x00, 0x9E, 0x73), "purple": (0xA8, 0x50, 0x8A)}
LEAST = 150  # pixels of full colour that a curve across a chart has at least


def unfilter(kind, line, above, pixel):
    """One row of a PNG, in place: each byte was written as the difference to a guess from its neighbours."""
    for i in range(len(line)):
        left = line[i - pixel] if i >= pixel else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = above[i]
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            corner = above[i - pixel] if i >= pixel else 0
            far = [abs(above[i] - corner), abs(left - corner), abs(left + above[i] - 2 * corner)]
            guess = (left, above[i], corner)[far.index(min(far))]
        line[i] = (line[i] + guess) & 255


def read_png(path):
    data = open(path, "rb").read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG"
    at, packed = 8, b""
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and color in (2, 6) and not interlaced, (depth, color, interlaced)
        if kind == b"IDAT":
            packed += body
        at += 12 + length
    pixel = 3 if color == 2 else 4
    raw, rows = zlib.decompress(packed), []
    above = bytearray(width * pixel)
    for y in range(height):
        start = y * (width * pixel + 1)
        line = bytearray(raw[start + 1 : start + 1 + width * pixel])
        if raw[start]:
            unfilter(raw[start], line, above, pixel)
        rows.append(line)
        above = line
    return width, height, pixel, rows


def main():
    width, height, pixel, rows = read_png(sys.argv[1])
    assert width == int(sys.argv[2]), width
    counts = dict.fromkeys(COLORS, 0)
    wanted = {bytes(color): name for name, color in COLORS.items()}
    for line in rows:
        for x in range(0, len(line), pixel):
            name = wanted.get(bytes(line[x : x + 3]))
            if name:
                counts[name] += 1
        assert line[-4 * pixel :].count(255) == 4 * pixel, "something sticks out at the right"
        assert bytes(line[:3]) == b"\xff\xff\xff", "the paper is not white"
    for name, count in counts.items():
        assert count >= LEAST, (name, counts)
    print(f"{width} x {height}: pixels", *(f"{name} {count}" for name, count in counts.items()))


main()
