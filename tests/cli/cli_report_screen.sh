#!/usr/bin/env bash
# The report as a browser draws it, on a phone and on a desk: every chart's curves are there in their colours, and nothing sticks out at the
# right. TV_SCREEN=DIR keeps the pictures.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v python3 >/dev/null || skip "no python3"
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$chromium" ] || skip "no chromium (Debian's package chromium)"

# shot PAGE PICTURE WIDTH HEIGHT
shot() {
    timeout 80 "$chromium" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars \
        --user-data-dir="$work/profile" --window-size="$3,$4" --screenshot="$work/$2" "file://$work/$1" >chromium.log 2>&1 || true
    [ -s "$2" ] || skip "chromium does not run here: $(tail -n 1 chromium.log)"
}

make_small
settings=(--config c.yaml --run run --set train.steps=120 --set checkpoint.every=30 --set train.eval_every=20)
expect 0 trivote train "${settings[@]}" --set train.stop_at=70
expect 0 trivote train "${settings[@]}"
expect 0 trivote report run
shot run/report.html phone.png 390 3400
shot run/report.html desk.png 1200 1500
[ -z "${TV_SCREEN:-}" ] || cp phone.png desk.png "$TV_SCREEN"
for picture in phone.png:390 desk.png:1200; do
    expect 0 python3 "$root/tests/cli/report_pixels.py" "${picture%:*}" "${picture#*:}"
    echo "$out"
done
