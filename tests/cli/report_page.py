"""Checks a page of `trivote report`: report_page.py run PAGE METRICS | parts PAGE METRICS | make METRICS | long PAGE"""
import html.parser
import json
import re
import sys
import xml.etree.ElementTree as tree

MARKS = re.compile(r"[ML](-?[\d.]+) (-?[\d.]+)")


class Balanced(html.parser.HTMLParser):
    """Every element is closed in its order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()


def read_page(path):
    text = open(path, encoding="utf-8").read()
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert not parser.open, parser.open
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & parser.seen, parser.seen
    for outside in ("http:", "https:", "//", "url(", "@import", "src=", "href="):
        assert outside not in text, outside
    assert 'name="viewport"' in text and "@media print" in text
    return text, tree.fromstring(text.split("\n", 1)[1])


def curves(page):
    """{(chart, curve): [(x, y), ...]} of all drawn lines."""
    found = {}
    for figure in page.iter("figure"):
        for path in figure.iter("path"):
            if "data-curve" in path.attrib:
                points = [(float(x), float(y)) for x, y in MARKS.findall(path.attrib["d"])]
                found[figure.attrib["id"], path.attrib["data-curve"]] = points
    return found


def check_linear(points, values, what):
    """The drawn heights are a straight function of the values: scale and offset from the extremes, all others on it."""
    assert len(points) == len(values), (what, len(points), len(values))
    low, high = values.index(min(values)), values.index(max(values))
    scale = (points[high][1] - points[low][1]) / (values[high] - values[low])
    assert scale < 0, what
    for (_, y), value in zip(points, values):
        assert abs(points[low][1] + scale * (value - values[low]) - y) < 0.2, (what, y, value)


def check_run(page_path, metrics_path):
    text, page = read_page(page_path)
    steps, evals = {}, {}
    for line in open(metrics_path, encoding="utf-8"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "step":
            steps[event["step"]] = event
            evals = {step: e for step, e in evals.items() if step < event["step"]}  # of what is done again
        if event["event"] == "eval":
            evals[event["step"]] = event
    assert sorted(steps) == list(range(1, 9)), sorted(steps)
    drawn = curves(page)
    for name, points in drawn.items():
        assert points == sorted(points, key=lambda p: p[0]), name
    in_order = [steps[s] for s in sorted(steps)]
    check_linear(drawn["loss", "each step"], [s["bpb"] for s in in_order], "bits a byte")
    check_linear(drawn["flips", "each step"], [s["flips"] for s in in_order], "flips")
    check_linear(drawn["zeros", "each step"], [s["zeros"] for s in in_order], "zeros")
    check_linear(drawn["throughput", "each step"], [s["bytes"] / s["seconds"]["total"] for s in in_order], "throughput")
    phases = ("data", "forward", "backward", "exchange", "ballot")  # one axis for all
    check_linear(sum((drawn["phases", p] for p in phases), []), [s["seconds"][p] for p in phases for s in in_order], "phases")
    assert len(drawn["loss", "held-out text"]) == len(evals) == 2, evals
    for figure in page.iter("figure"):
        marks = [path.attrib.get("class") for path in figure.iter("path")]
        assert marks.count("restart") == 1 and marks.count("save") == 2, (figure.attrib["id"], marks)
        labels = [t.text for t in figure.iter("text")]
        assert "step" in labels and "time" in labels and "0" in labels and len(labels) > 12, labels
    assert page.find("body/h1").text == 'a <b> & "c"', page.find("body/h1").text
    flat = " ".join("".join(page.itertext()).split())
    for words in ("1 line of metrics.jsonl skipped", "2 steps were done again", "8 of 8", "width 64, blocks 1, heads 2"):
        assert words in flat, words
    print(f"{len(drawn)} curves, {len(text)} bytes")


def check_parts(page_path, metrics_path):
    """Every figure of every part has a small chart with its values, a curve a part; blocks' parts are one, by their mean."""
    text, page = read_page(page_path)
    bins, told, shown = {}, {}, {"rows_used", "entropy_bits", "tokens_min", "tokens_median", "tokens_max", "edges", "mean_score", "topic", "reset", "dampen", "forget_fast", "forget_slow"}
    for line in open(metrics_path, encoding="utf-8"):
        event = json.loads(line)
        for part, figures in event.get("parts", {}).items():
            for name, value in figures.items():
                if isinstance(value, list):  # of the last step
                    bins[f"bins-{part}-{name}"] = value
                elif name not in shown:
                    key = name, re.sub(r"^block\.[0-9]+\.", "", part)
                    told.setdefault(key, {}).setdefault(event["step"], []).append(value)
    told = {key: steps for key, steps in told.items() if any(any(v) for v in steps.values())}
    drawn = {key: points for key, points in curves(page).items() if key[0].startswith("part-")}
    assert {(chart, curve) for chart, curve in drawn} == {("part-" + name, part) for name, part in told}, (drawn.keys(), told.keys())
    charts = {name for name, _ in told}
    assert text.count('id="part-') == len(charts) > 0
    for name in charts:  # the curves of a chart have one axis
        points, values = [], []
        for (figure, part), steps in told.items():
            if figure == name:
                points += drawn["part-" + name, part]
                values += [sum(v) / len(v) for v in steps.values()]
        if max(values) > min(values):
            check_linear(points, values, name)
    assert not shown & {chart.removeprefix("part-") for chart, _ in drawn}
    bars = {}
    for figure in page.iter("figure"):
        if figure.attrib["id"].startswith("bins-"):
            bars[figure.attrib["id"]] = {int(r.attrib["data-bin"]): float(r.attrib["height"]) for r in figure.iter("rect")}
    bins = {name: counts for name, counts in bins.items() if any(counts[1:])}
    assert bars.keys() == bins.keys(), (bars.keys(), bins.keys())
    for name, counts in bins.items():  # heights are the counts on one scale; what is 0 has no bar
        assert sorted(bars[name]) == [2**k for k, count in enumerate(counts[1:]) if count > 0], (name, bars[name], counts)
        tallest = max(bars[name].values())
        for k, count in enumerate(counts[1:]):
            assert abs(bars[name].get(2**k, 0) / tallest - count / max(counts[1:])) < 1e-3, (name, k)
    print(f"{len(charts)} small charts, {len(told)} curves, {len(bins)} histograms, {len(text)} bytes")


def make_long(path):
    with open(path, "w", encoding="utf-8") as out:
        for step in range(1, 30001):
            event = {"event": "step", "step": step, "loss": 2 + 100 / (step + 50), "bpb": (2 + 100 / (step + 50)) / 0.693}
            if step != 77:
                event |= {"flips": step % 100 + (5000 if step == 12345 else 0), "zeros": 300, "weights": 1000, "bytes": 10,
                          "bytes_seen": 10 * step, "ranks": 1, "time": 1e9 + step, "seconds": {"total": 1.0}}
            out.write(json.dumps(event) + "\n")
            if step % 100 == 0:
                out.write(json.dumps({"event": "checkpoint", "step": step, "seconds": 1, "digest": "0" * 32}) + "\n")
                out.write(json.dumps({"event": "eval", "step": step, "bpb": 3 + 100 / step}) + "\n")


def check_long(path):
    text, page = read_page(path)
    drawn = curves(page)
    for name, points in drawn.items():
        assert len(points) <= 700, (name, len(points))
    assert len(drawn["loss", "each step"]) > 600 and len(drawn["loss", "held-out text"]) == 300
    flips = drawn["flips", "each step"]
    spike = min(flips, key=lambda p: p[1])  # the one large value is drawn, at its step and far above the others
    assert abs(spike[0] / flips[-1][0] - 12345 / 30000) < 0.01 and spike[1] < -100, spike
    assert re.search("[0-9]+ of the drawn points lies? outside", text)
    assert len(text) < 250000, len(text)
    flat = " ".join("".join(page.itertext()).split())
    assert "The last 20 of 300" in flat and "8.3 h" in flat, flat[:600]
    print(f"30000 steps: {len(drawn)} curves, {len(text)} bytes")


if sys.argv[1] == "run":
    check_run(sys.argv[2], sys.argv[3])
elif sys.argv[1] == "parts":
    check_parts(sys.argv[2], sys.argv[3])
elif sys.argv[1] == "make":
    make_long(sys.argv[2])
else:
    check_long(sys.argv[2])
