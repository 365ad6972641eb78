#!/usr/bin/env bash
# Texts that cannot be used: one clear message each, exit code 1; several files; a text that changes under a run.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

refused() {
    local pattern=$1
    shift
    expect 1 trivote train --config c.yaml --run never "$@"
    says "$pattern"
    [ -z "$(find . -path './never/step-*')" ] || fail "a refused run left a checkpoint"
}
: >empty.txt
printf 'too short' >short.txt
mkdir folder
refused 'empty\.txt' --set 'data.train=[empty.txt]'
refused 'short\.txt|valid_bytes|held' --set 'data.train=[short.txt]'
refused 'short\.txt' --set 'data.train=[short.txt]' --set data.valid=text.txt
refused 'nowhere\.txt' --set 'data.train=[nowhere.txt]'
refused 'folder' --set 'data.train=[folder]'
refused 'nowhere\.txt' --set data.valid=nowhere.txt
refused 'text\.txt|valid_bytes|held' --set data.valid_bytes=59999
if [ "$(id -u)" -ne 0 ]; then
    cp text.txt closed.txt
    chmod 0 closed.txt
    refused 'closed\.txt' --set 'data.train=[closed.txt]'
else
    echo "skipped: a text without read permission, since root reads it all the same"
fi
expect 1 ranks 3 train --config c.yaml --run never --set 'data.train=[nowhere.txt]'
says_once 'nowhere\.txt'

# Two files are one text, but no window crosses their border: that is another run than the joined file.
head -c 30000 text.txt >a.txt
tail -c 30000 text.txt >b.txt
expect 0 ranks 2 train --config c.yaml --run two --set 'data.train=[a.txt, b.txt]'
two=$(final_field digest)
expect 0 trivote train --config c.yaml --run one --set 'data.train=[a.txt, b.txt]'
same "$(final_field digest)" "$two" "digest with two files on one and two ranks"
expect 0 trivote train --config c.yaml --run own --set 'data.train=[a.txt]' --set data.valid=b.txt

# A text that shrinks or grows during a run ends it with its name; the checkpoints stay.
for change in "truncate -s 20000 moving.txt" "truncate -s 70000 moving.txt"; do
    rm -rf moving
    cp text.txt moving.txt
    rm -f moving.log
    in_background moving.log "$program" train --config c.yaml --run moving --set 'data.train=[moving.txt]' --set train.steps=1000000
    wait_for 60 grep -q '"event":"checkpoint","step":4,' moving/metrics.jsonl || fail "no checkpoint after a minute: $(cat moving.log)"
    $change
    join_background moving.log
    same "$code" 1 "exit code after '$change'"
    says 'moving\.txt'
    expect 0 trivote verify --checkpoint "$(newest moving)"
done

# Another text does not resume a run.
make_text text.txt 60000 43
expect 1 trivote train --config c.yaml --run one --resume auto --set 'data.train=[text.txt]'
says 'text|corpus'
