#!/bin/sh
# Fetches capture files that others made, from the source packages of Debian, into a directory.
#
# None of them is part of Millrace: each stays under the licence of its package. The system's own
# package lists are left alone.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 64; }
directory=$1
suite=bookworm
# The mirror that this system uses already, unless another is named.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' "Codename: $suite" | head -n 1)}
[ -n "$mirror" ] || { echo "$0: no mirror of Debian $suite is known here; name one in DEBIAN_MIRROR" >&2; exit 1; }
packages="tcpdump ndpi"

mkdir -p "$directory/apt/lists/partial" "$directory/apt/archives/partial" "$directory/sources"
directory=$(cd "$directory" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$keyring] $mirror $suite main" > "$directory/apt/sources.list"

apt() {
    apt-get -q -o Dir::Etc::sourcelist="$directory/apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$directory/apt/lists" -o Dir::Cache::archives="$directory/apt/archives" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}

apt update >&2
cd "$directory/sources"
for package in $packages; do
    apt source --download-only --tar-only "$package" >&2 || echo "without $package: it could not be fetched" >&2
done

for archive in *.orig.tar.*; do
    case $archive in *.asc) continue ;; esac
    name=${archive%%_*}
    mkdir -p "$directory/captures/$name"
    # Whatever is a capture by its name, and nothing else.
    tar -xf "$archive" -C "$directory/captures/$name" --strip-components=1 --wildcards --no-anchored \
        '*.pcap' '*.pcapng' '*.cap' '*.pcap.gz' 2>/dev/null || true
done
find "$directory/captures" -type f -size +0 | LC_ALL=C sort > "$directory/list"
echo "$(wc -l < "$directory/list") capture files in $directory/captures" >&2
