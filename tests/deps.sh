#!/usr/bin/env bash
# Installs the Debian packages that build, demo and tests need. Does nothing when all are there.
#
# The machine's own package sources are used as they are. While packages are being installed a temporary
# policy-rc.d keeps their services from starting; services of packages that came by this script are then
# disabled. Packages that were there before are not touched. Arguments are further packages.
set -euo pipefail

# What each is for: the linker and libclang (build), Debian's Kamailio and the tools that fetch its
# headers, SIP peers, fault injection, the tools the lab is made of, and the reader of captures.
packages=(
    gcc libc6-dev libclang-dev dpkg-dev ca-certificates
    kamailio kamailio-lua-modules
    sip-tester sipsak
    libfaketime nftables
    iproute2 util-linux curl
    tshark
    "$@"
)

fail() {
    echo "deps: $*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup, then try again"
command -v git >/dev/null || fail "git is missing: apt-get install git"
command -v dpkg-query >/dev/null || fail "this is no Debian: the lab needs Debian 12 with its Kamailio package"

installed() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | sort -u
}

before=$(installed)
missing=()
for package in "${packages[@]}"; do
    grep -qxF -- "$package" <<<"$before" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "missing packages: ${missing[*]} (run as root, or install sudo)"
    as_root=(sudo)
fi

echo "deps: installing ${missing[*]}"
policy=/usr/sbin/policy-rc.d
kept=
log=$(mktemp)
restore() {
    "${as_root[@]}" rm -f "$policy"
    [ -z "$kept" ] || "${as_root[@]}" mv "$kept" "$policy"
    rm -f "$log"
}
if [ -e "$policy" ]; then
    kept=$policy.before-locus
    "${as_root[@]}" mv "$policy" "$kept"
fi
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
"${as_root[@]}" chmod 755 "$policy"

install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y install --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1
}
# The lists may be fresh already; they are fetched only when that was not enough.
if ! install; then
    "${as_root[@]}" apt-get -q update >"$log" 2>&1 || true
    if ! install; then
        cause=$(grep -m1 '^E:' "$log" || tail -n 1 "$log")
        fail "apt-get could not install ${missing[*]} (${cause#E: }): is the network up, and is this Debian 12?"
    fi
fi

# Everything that is new now came by us, dependencies included.
new=$(comm -13 <(echo "$before") <(installed))
for package in $new; do
    units=$(dpkg-query -L "$package" | sed -n 's#^\(/usr\)\?/lib/systemd/system/\([^/@]*\.\(service\|socket\|timer\)\)$#\2#p')
    for unit in $units; do
        if [ -d /run/systemd/system ]; then
            "${as_root[@]}" systemctl disable --now "$unit" >/dev/null 2>&1 || true
        elif command -v systemctl >/dev/null; then
            "${as_root[@]}" systemctl disable "$unit" >/dev/null 2>&1 || true
        fi
    done
    scripts=$(dpkg-query -L "$package" | sed -n 's#^/etc/init\.d/\([^/]*\)$#\1#p')
    for script in $scripts; do
        "${as_root[@]}" update-rc.d "$script" disable >/dev/null 2>&1 || true
    done
done
echo "deps: done"
