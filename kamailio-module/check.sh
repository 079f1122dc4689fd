#!/bin/sh
# Checks a built module: what it exports, what it wants from its host, and what it is made of.
#
#   kamailio-module/check.sh target/release/liblocus.so
#
# Symbols that nobody defines would show only when Kamailio starts; a symbol that is exported by chance could be
# taken for another module's; and a library for sockets or secrets has no business inside a SIP worker.
set -eu

object=${1:?usage: check.sh path/to/liblocus.so}
host=${KAMAILIO:-/usr/sbin/kamailio}
workspace=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "check.sh: $*" >&2
    exit 1
}

[ -f "$object" ] || fail "$object is missing: build it first"
[ -x "$host" ] || fail "$host is missing: install kamailio (or set KAMAILIO)"

# Exactly the symbols that Kamailio looks up.
nm -D --defined-only "$object" | awk '{ print $3 }' | sort >"$work/exported"
printf '%s\n' exports mod_register module_flags module_interface_ver module_version | sort >"$work/intended"
cmp -s "$work/exported" "$work/intended" \
    || fail "exported symbols differ from the intended ones: $(comm -3 "$work/exported" "$work/intended" | tr -d '\t' | tr '\n' ' ')"

# Everything it wants is Kamailio's or a system library's (weak symbols may be absent).
nm -D --undefined-only "$object" | awk '$1 == "U" { sub(/@.*/, "", $2); print $2 }' | sort -u >"$work/wanted"
{
    nm -D --defined-only "$host"
    ldd "$object" | awk '/=> \// { print $3 } /^\t\// { print $1 }' | while read -r library; do
        nm -D --defined-only "$library"
    done
} | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/offered"
missing=$(comm -23 "$work/wanted" "$work/offered" | tr '\n' ' ')
[ -z "$missing" ] || fail "nobody defines: $missing"

# No thread-local storage in the static block, of which a process has little left when it loads modules.
if readelf -d "$object" | grep -q STATIC_TLS; then
    fail "the object wants static thread-local storage"
fi

# Nothing for sockets, secrets or asynchronous work among its parts.
cd "$workspace"
cargo tree --offline --package locus-kamailio --edges normal --prefix none --format '{p}' \
    | awk '{ print $1 }' | sort -u >"$work/parts"
alien=$(grep -E '^(socket2|mio|tokio|async-|rustls|ring|aws-lc|openssl|native-tls|sha[0-9]|md-?5|aes|chacha|ed25519|x25519|rsa|rand|getrandom|crossbeam|rayon|hyper|ureq|axum)' "$work/parts" | tr '\n' ' ' || true)
[ -z "$alien" ] || fail "parts that do not belong into a SIP worker: $alien"

echo "check.sh: $object exports $(wc -l <"$work/exported") symbols, wants $(wc -l <"$work/wanted"), has $(wc -l <"$work/parts") parts"
