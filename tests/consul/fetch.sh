#!/bin/sh
# Fetches a Consul server for the tests: Debian 12 has none, Debian 11's package (1.8.7) is unpacked, not installed.
# Usage: fetch.sh DIRECTORY. Afterwards DIRECTORY/consul is the program.
set -eu

directory=$1
[ ! -x "$directory/consul" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../debian.sh"

archive_of "$work" deb bullseye 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
(cd "$work" && archive download consul >"$work/log" 2>&1) || { cat "$work/log" >&2; exit 1; }
mkdir -p "$directory"
dpkg-deb -x "$work"/consul_*.deb "$work/root"
mv "$work/root/usr/bin/consul" "$directory/consul"
