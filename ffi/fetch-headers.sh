#!/bin/sh
# Fetches the source tree of exactly the installed Kamailio into target/kamailio: Debian has no headers
# package, and Locus is built against the headers of the very version that will load it.
#
# Nothing of the system is changed: the sources the machine already trusts are read, rewritten to source
# packages in a private list, and the tree is unpacked below target/. Does nothing when all is there.
# KAMAILIO_SRC=/path/to/tree (a Kamailio tree of the installed version) makes this step unnecessary.
set -eu

workspace=$(cd "$(dirname "$0")/.." && pwd)
home="$workspace/target/kamailio"

say() { echo "kamailio headers: $*"; }
fail() {
    echo "kamailio headers: $*" >&2
    exit 1
}

if [ -n "${KAMAILIO_SRC:-}" ]; then
    for tree in "$KAMAILIO_SRC" "$KAMAILIO_SRC/src"; do
        [ -f "$tree/core/sr_module.h" ] && { say "using KAMAILIO_SRC=$KAMAILIO_SRC"; exit 0; }
    done
    fail "KAMAILIO_SRC=$KAMAILIO_SRC holds no Kamailio tree (core/sr_module.h is missing)"
fi

command -v dpkg-query >/dev/null || fail "no dpkg here: unpack the installed version's source and set KAMAILIO_SRC"
version=$(dpkg-query -W -f='${Status} ${source:Version}' kamailio 2>/dev/null | sed -n 's/^install ok installed //p')
[ -n "$version" ] || fail "Kamailio is not installed: apt-get install kamailio (or set KAMAILIO_SRC)"

name=$(echo "$version" | tr ':' '_')
tree="$home/$name"
link() { ln -sfn "$name" "$home/src"; }
finish_when_there() {
    [ -f "$tree/src/core/sr_module.h" ] || return 0
    link
    exit 0
}
finish_when_there

command -v apt-get >/dev/null || fail "no apt-get here: unpack kamailio $version and set KAMAILIO_SRC"
command -v dpkg-source >/dev/null || fail "dpkg-source is missing: apt-get install dpkg-dev"

mkdir -p "$home"
# One at a time: whoever waited here may find everything done.
exec 9>"$home/lock"
flock 9
finish_when_there

apt="$home/apt"
mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/download"
rm -f "$apt"/parts/*
: >"$apt/empty.list"

# The machine's own enabled sources, asked for source packages instead of binary ones.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    copy="$apt/parts/$(basename "$file")"
    case $file in
        *.sources) sed 's/^[Tt]ypes:.*/Types: deb-src/' "$file" >"$copy" ;;
        *) sed -n 's/^[[:space:]]*deb[[:space:]]/deb-src /p' "$file" >"$copy" ;;
    esac
done

private_apt() {
    apt-get -q \
        -o Dir::Etc::SourceList="$apt/empty.list" -o Dir::Etc::SourceParts="$apt/parts" \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" \
        -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root "$@"
}

say "fetching the source package kamailio $version"
log="$apt/log"
private_apt update >"$log" 2>&1 || fail "cannot read the source lists; see $log"
(cd "$apt/download" && private_apt source --download-only --only-source "kamailio=$version") >>"$log" 2>&1 \
    || fail "cannot fetch the source package kamailio=$version; see $log (or set KAMAILIO_SRC)"

# dpkg-source wants to create its folder itself; the rename makes a half-unpacked tree impossible.
file=$(echo "$version" | sed 's/^[0-9]*://')
rm -rf "$apt/unpacked"
dpkg-source --no-check -x "$apt/download/kamailio_$file.dsc" "$apt/unpacked" >>"$log" 2>&1 \
    || fail "cannot unpack the source package; see $log"
[ -f "$apt/unpacked/src/core/sr_module.h" ] || fail "the source package holds no src/core/sr_module.h; see $log"
rm -rf "$tree"
mv "$apt/unpacked" "$tree"
rm -rf "$apt"
link
say "kamailio $version is in $tree"
