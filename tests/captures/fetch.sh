#!/bin/sh
# Fetches capture files that others made, from the source packages of Debian, into a directory.
#
# None of them is part of Millrace: each stays under the licence of its package.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 64; }
directory=$1
mkdir -p "$directory/sources"
directory=$(cd "$directory" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../debian.sh"

archive_of "$directory/apt" deb-src bookworm
cd "$directory/sources"
for package in tcpdump ndpi; do
    archive source --download-only --tar-only "$package" >&2 || echo "without $package: it could not be fetched" >&2
done

for source in *.orig.tar.*; do
    case $source in *.asc) continue ;; esac
    name=${source%%_*}
    mkdir -p "$directory/captures/$name"
    # Whatever is a capture by its name, and nothing else.
    tar -xf "$source" -C "$directory/captures/$name" --strip-components=1 --wildcards --no-anchored \
        '*.pcap' '*.pcapng' '*.cap' '*.pcap.gz' 2>/dev/null || true
done
find "$directory/captures" -type f -size +0 | LC_ALL=C sort > "$directory/list"
echo "$(wc -l < "$directory/list") capture files in $directory/captures" >&2
