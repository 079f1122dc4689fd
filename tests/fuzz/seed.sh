#!/usr/bin/env bash
# Gives the decoders' fuzz targets the golden files to begin with: seed.sh CORPUS
set -euo pipefail

corpus=$1
golden=$(dirname "$0")/../../proto/tests/golden

# bytes FILE: the bytes that a golden file names
bytes() {
    printf "$(tr -s ' \n' '\n' <"$1" | sed '/^$/d; s/^/\\x/' | tr -d '\n')"
}

for file in "$golden"/v1/*.hex; do
    mkdir -p "$corpus/decode"
    # The target's first byte says how to cut the stream behind it; without it, it is one message.
    name=$(basename "$file" .hex)
    bytes "$file" >"$corpus/decode/$name"
    { printf '\007'; bytes "$file"; } >"$corpus/decode/stream-$name"
done
mkdir -p "$corpus/datagram" "$corpus/group_frame"
for file in "$golden"/lrm/*.hex; do
    bytes "$file" >"$corpus/datagram/$(basename "$file" .hex)"
done
# DATA's payload is a distribution frame behind the header of 32 bytes.
bytes "$golden/lrm/data.hex" | tail -c +33 >"$corpus/group_frame/data"
