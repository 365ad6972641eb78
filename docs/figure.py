"""A figure of the model that a config describes, as SVG: figure.py CONFIG [FILE]

Python's standard library only. Sizes come from the config, what it leaves out from the defaults in docs/config.md beside this script.
The page's own figure: python3 docs/figure.py configs/vq-10m.yaml docs/model.svg
"""
import html
import os
import re
import sys

VOCAB, QUERY, GRAM = 264, 64, 64  # entries; widths of the experts' query and of the rows of n-grams
# Sections that say nothing of the model's shape.
OTHER = {"loss", "parallel", "data", "train", "vote", "update", "checkpoint", "guard", "comm", "run"}


def stop(message):
    sys.exit(f"figure.py: {message}")


# ---- config ---------------------------------------------------------------------------------------------------------


def read_value(text):
    """A number, a truth value, a text or a list of these."""
    if text.startswith("["):
        return [read_value(item.strip()) for item in text.strip("[]").split(",") if item.strip()]
    text = text.strip("\"'")
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else text


def read_defaults(path):
    """{section: {key: value}} from the tables of docs/config.md."""
    found, section = {}, None
    for line in open(path, encoding="utf-8"):
        head = re.match(r"## ([a-z_]+)$", line)
        row = re.match(r"\| `([a-z_0-9]+)` \| [a-z]+ \| `([^`]*)` \|", line)
        if head:
            section = found.setdefault(head[1], {})
        elif row and section is not None:
            section[row[1]] = read_value(row[2])
    return found


def read_config(path, defaults):
    """The defaults with the file's values: sections at the left border, keys indented, comments."""
    config, section, name = {key: dict(keys) for key, keys in defaults.items()}, None, None
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        match = re.fullmatch(r"( *)([a-z_0-9]+):(?: +(.+))?", line)
        if not line:
            continue
        if not match or (not match[1] and match[3]) or (match[1] and section is None):
            stop(f"{path}:{number}: no section and no key: {line}")
        if not match[1]:
            name, section = match[2], config.get(match[2])
            if section is None:
                stop(f"{path}:{number}: section '{name}' is not in docs/config.md")
        elif match[2] not in section:
            stop(f"{path}:{number}: key '{name}.{match[2]}' is not in docs/config.md")
        else:
            section[match[2]] = read_value(match[3] or "")
    return config


# ---- parts ----------------------------------------------------------------------------------------------------------


class Box:
    """A part: what stands in its box, and its ternary weights in all its places."""

    def __init__(self, kind, title, formula, sizes, weights, **more):
        self.kind, self.title, self.formula, self.sizes, self.weights = kind, title, formula, sizes, weights
        self.block = more.get("block", False)  # stands in each block
        self.motifs = more.get("motifs")  # "gives", "takes"
        self.loss = more.get("loss")


def loss_text(c, name):
    groups = c["loss"][f"{name}_groups"]
    groups = groups if isinstance(groups, list) else [groups]
    moved = ", ".join(groups) if len(groups) < 4 else f"{', '.join(groups[:3])} and {len(groups) - 3} more"
    return f"loss: {name.replace('_', '-')} x {c['loss'][name + '_weight']}, moves {moved}"


def attention(c):
    m = c["model"]
    width, latent, each = m["width"], m["latent_kv"], m["width"] // m["heads"]
    inner = 3 * latent * width if latent else 2 * width * width
    sizes = f"{m['heads']} heads of width {each}" + (f", keys and values from a latent of width {latent}" if latent else "")
    return Box("attention", "Attention", "x += lin(Out, attend(q, k, v)), of norm(x)", sizes,
               m["blocks"] * (width + 2 * each + 2 * width * width + inner), block=True)


def feed_forward(c):
    m, e = c["model"], c["moe"]
    width = m["width"]
    if not e["experts"]:
        return Box("ffn", "Feed-forward", "x += lin(Down, silu(g) u), of norm(x)", f"inner width {m['ffn']:,}",
                   m["blocks"] * (width + 3 * m["ffn"] * width), block=True)
    inner, shared, count = e["width"] or m["ffn"], e["shared"], e["experts"]
    sizes = f"{count} experts of inner width {inner:,}, {e['top_k']} a token" + (f", one of {shared:,} for all" if shared else "")
    weights = width + QUERY * (width + count) + (2 * count + 1) * inner * width + 3 * shared * width
    return Box("moe", "Mixture of experts", "x += lin(Down, sum of gate h over the chosen experts)", sizes,
               m["blocks"] * weights, block=True)


def table(c, kind, title, formula, motifs):
    width, each, rows = c["model"]["width"], c["codebook"]["width"], c[kind]["rows"]
    more = each * each if kind == "composite" else 0
    return Box(kind, title, formula, f"{rows:,} rows of width {each}", width + 2 * each * width + rows * each + more,
               motifs=motifs, loss=loss_text(c, "commitment"))


def grams(c):
    width, rows, both = c["model"]["width"], c["memgram"]["rows"], c["codebook"]["rows"] > 0
    orders = ", ".join(str(n) for n in c["memgram"]["orders"])
    sizes = f"last {orders} bytes{' and motifs' if both else ''}: {rows:,} rows of width {GRAM} each"
    return Box("memgram", "N-grams", "x += lin(Up, sum of gate f row over the last n)", sizes,
               width + 2 * GRAM * width + (2 if both else 1) * rows * GRAM, motifs="takes" if both else None)


def modality(c):
    width, m = c["model"]["width"], c["modality"]
    kinds = [(name, m[key + "_frames"], m[key + "_width"]) for name, key in (("an image", "image"), ("a sound", "audio")) if m[key + "_width"]]
    sizes = ", ".join(f"{frames:,} of {values:,} values {name}" for name, frames, values in kinds)
    return Box("modality", "Images and sounds", "x += gate lin(Proj, norm(feature))", sizes, sum(values * (1 + width) for _, _, values in kinds))


def graph(c):
    width, each, g = c["model"]["width"], c["codebook"]["width"], c["graph"]
    hops, rank = g["hops"], g["lora_rank"]
    sizes = f"{hops} hop{'s' if hops > 1 else ''}, {g['max_edges']:,} edges at most, {g['edges_per_node']} into a motif"
    weights = hops * (2 * each * each + 2 * rank * each + rank) + width * each
    return Box("graph", "Graph of motifs", "x += lin(Up, node of the motif)", sizes, weights, motifs="takes")


def focus(c):
    width, cell, each, rows = c["model"]["width"], c["focus"]["width"], c["codebook"]["width"], c["focus"]["codebook_rows"]
    weights = 3 * width + 11 * cell * (width + 2 * cell) + 2 * cell * width
    weights += cell + each * cell + rows * each + each * width if rows else 0
    sizes = f"two cells of width {cell:,} over segments of {c['focus']['segment']}" + (f", {rows:,} rows" if rows else "")
    return Box("focus", "Cells over segments", "x += lin(Up, states before the segment)", sizes, weights,
               loss=loss_text(c, "commitment") if rows else None)


def list_parts(c):
    """The parts that the config switches on, in their order. A new part has its line here."""
    width = c["model"]["width"]
    parts = [Box("embed", "Embedding", "x = Embed[byte]", f"{VOCAB} entries of width {width:,}", VOCAB * width)]
    if c["modality"]["image_width"] or c["modality"]["audio_width"]:
        parts.append(modality(c))
    if c["model"]["sequencer"]:
        parts.append(Box("sequencer", "Sequencer", "x += lin(Seq, [x[t-2], x[t-1], x[t]])", "trigrams", 3 * width * width))
    if c["codebook"]["rows"]:
        parts.append(table(c, "codebook", "Codebook", "x += lin(Up, row nearest to lin(Down, norm(x)))", "gives"))
    if c["memgram"]["rows"]:
        parts.append(grams(c))
    if c["graph"]["hops"]:
        parts.append(graph(c))
    if c["focus"]["width"]:
        parts.append(focus(c))
    if c["model"]["blocks"]:
        parts += [attention(c), feed_forward(c)]
    if c["composite"]["rows"]:
        parts.append(table(c, "composite", "Composite head", "x += lin(Up, row nearest to lin(Motif, motif) + lin(Down, norm(x)))", "takes"))
    parts.append(Box("head", "Head", "logits = lin(Head, norm(x))", f"{VOCAB} logits: the next byte", width + VOCAB * width,
                     loss=loss_text(c, "cross_entropy")))
    return parts


DRAWN = {"model", "moe", "codebook", "memgram", "modality", "graph", "focus", "composite"}


def check_sections(config, defaults, path):
    for name in config:
        if name not in DRAWN | OTHER and config[name] != defaults[name]:
            stop(f"{path}: a section '{name}', of which list_parts knows nothing yet: add its part there")


# ---- drawing --------------------------------------------------------------------------------------------------------

WIDTH, STREAM, LEFT, RIGHT, TOP, GAP = 760, 118, 170, 700, 86, 30
STYLE = ("text{font:13px system-ui,sans-serif;fill:#1a1a1a}.t{font-weight:600;font-size:14.5px}.f{font:12px ui-monospace,monospace}"
         ".s{fill:#555}.e{text-anchor:end}.m{text-anchor:middle}.b{fill:#f4f7fb;stroke:#0072b2}.k{fill:#fff8ee;stroke:#d55e00}"
         ".r{fill:none;stroke:#888;stroke-dasharray:6 4}.l{fill:none;stroke:#1a1a1a;stroke-width:1.5}.x{stroke-width:3}"
         ".v{fill:none;stroke:#009e73;stroke-width:1.5;stroke-dasharray:3 3}.w{fill:#fff}")
ARROW = '<marker id="{0}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{1}"/></marker>'


def text(x, y, words, kind=""):
    return f'<text x="{x}" y="{y}"' + (f' class="{kind}"' if kind else "") + f">{html.escape(words)}</text>"


def draw_box(box, y, height, ends):
    """`ends`: embedding and head stand in the stream, the others beside it."""
    middle = y + height // 2
    out = [f'<g data-part="{box.kind}" data-weights="{box.weights}">',
           f'<rect x="{LEFT}" y="{y}" width="{RIGHT - LEFT}" height="{height}" rx="6" class="{"k" if box.loss else "b"}"/>',
           text(LEFT + 14, y + 21, box.title, "t"), text(RIGHT - 14, y + 21, f"{box.weights:,}", "e"),
           text(LEFT + 14, y + 40, box.formula, "f"), text(LEFT + 14, y + 58, box.sizes, "s")]
    if box.loss:
        out.append(text(LEFT + 14, y + 76, box.loss, "s"))
    if ends == "first":
        out.append(f'<path class="l" marker-end="url(#a)" d="M{LEFT} {middle}H{STREAM + 4}"/>')
    elif ends == "last":
        out.append(f'<path class="l" marker-end="url(#a)" d="M{STREAM} {middle}H{LEFT}"/>')
    else:
        out += [f'<path class="l" marker-end="url(#a)" d="M{STREAM} {middle - 14}H{LEFT}"/>',
                f'<path class="l" marker-end="url(#a)" d="M{LEFT} {middle + 14}H{STREAM + 11}"/>',
                f'<circle class="w l" cx="{STREAM}" cy="{middle + 14}" r="9"/>',
                f'<path class="l" d="M{STREAM - 5} {middle + 14}h10M{STREAM} {middle + 9}v10"/>']
    return out + ["</g>"]


def draw_motifs(places):
    """From the codebook's box to those that take its motifs, at the right."""
    out = []
    for i, (_, end) in enumerate(places[1:]):
        x = RIGHT + 28 + 14 * i
        out.append(f'<path class="v" marker-end="url(#g)" d="M{RIGHT} {places[0][1] - 10 + 10 * i}H{x}V{end}H{RIGHT + 2}"/>')
    if out:
        out.append(text(RIGHT - 14, places[0][1] + 14, "motifs", "s e"))
    return out


def draw_block(rows, blocks):
    inside = [(y, height) for box, y, height in rows if box.block]
    if not inside:
        return []
    top, end = inside[0][0] - 14, inside[-1][0] + inside[-1][1] + 14
    return [f'<rect class="r" x="24" y="{top}" width="{RIGHT - 8}" height="{end - top}" rx="10"/>',
            text(36, top + 24, f"x {blocks:,}", "t"), text(36, top + 42, "blocks" if blocks > 1 else "block", "s")]


def place_rows(parts):
    """[(box, y, height)]; the frame around blocks has room."""
    rows, y = [], TOP
    for i, box in enumerate(parts):
        before = parts[i - 1] if i else None
        if before and before.block != box.block:
            y += 16
        height = 88 if box.loss else 70
        rows.append((box, y, height))
        y += height + GAP
    return rows, y


def draw(config, path):
    parts = list_parts(config)
    rows, height = place_rows(parts)
    total = sum(box.weights for box in parts)
    first, last = (y + size // 2 for _, y, size in (rows[0], rows[-1]))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
           f"<title>The model of {html.escape(path)}</title>", f"<desc>Made by docs/figure.py from {html.escape(path)}</desc>",
           f"<style>{STYLE}</style>", "<defs>" + ARROW.format("a", "#1a1a1a") + ARROW.format("g", "#009e73") + "</defs>",
           f'<rect class="w" width="{WIDTH}" height="{height}"/>',
           text(24, 30, path, "t"),
           text(24, 50, f"windows of {config['model']['context']:,} bytes, width {config['model']['width']:,}", "s"),
           text(RIGHT - 14, 30, f"{total:,}", "t e"), text(RIGHT - 14, 50, "ternary weights", "s e")]
    out += draw_block(rows, config["model"]["blocks"])
    out.append(f'<path class="l x" d="M{STREAM} {first}V{last}"/>')
    out.append(text(STREAM - 14, first + 34, "x", "t e"))
    for i, (box, y, size) in enumerate(rows):
        out += draw_box(box, y, size, "first" if i == 0 else "last" if i == len(rows) - 1 else "")
    out += draw_motifs([(box, y + size // 2) for box, y, size in rows if box.motifs])
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    if len(sys.argv) not in (2, 3):
        stop("usage: figure.py CONFIG [FILE]")
    here = os.path.dirname(os.path.abspath(__file__))
    defaults = read_defaults(os.path.join(here, "config.md"))
    try:
        config = read_config(sys.argv[1], defaults)
    except OSError as error:
        stop(f"cannot read {sys.argv[1]}: {error.strerror}")
    check_sections(config, defaults, sys.argv[1])
    picture = draw(config, sys.argv[1])
    if len(sys.argv) == 2:
        sys.stdout.write(picture)
        return
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        out.write(picture)


main()
