#!/bin/sh
# Packs static programs, which run on any Linux of their architecture, with units, pages and samples.
#
#   tarball.sh x86_64-unknown-linux-musl
. "$(dirname "$0")/common.sh"

target=$1
name="millrace-$version-$(echo "$target" | sed 's/-unknown//')"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage="$work/$name"
sh "$root/deploy/packages/stage.sh" "$target" "$stage"
install -m 644 "$root/LICENSE" "$root/CHANGELOG.md" "$stage/usr/share/doc/millrace/"
find "$stage" -type d -exec chmod 755 {} +
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=ustar -c "$name" \
    | gzip -9n > "$out/$name.tar.gz"
echo "$out/$name.tar.gz"
