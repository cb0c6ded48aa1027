#!/bin/sh
# Fetches a Consul server for the tests: Debian 12 has none, Debian 11's package (1.8.7) is unpacked, not installed.
# Usage: fetch.sh DIRECTORY. Afterwards DIRECTORY/consul is the program.
set -eu

directory=$1
[ ! -x "$directory/consul" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The mirror that this system's own packages come from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$directory"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >"$work/sources.list"
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}
apt update >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
(cd "$work" && apt download consul >"$work/log" 2>&1) || { cat "$work/log" >&2; exit 1; }
dpkg-deb -x "$work"/consul_*.deb "$work/root"
mv "$work/root/usr/bin/consul" "$directory/consul"
