#!/bin/sh
# Makes all that is released, in target/packages: the Debian package, the container image, static programs, the bill of
# materials, and checksums.
#
#   release.sh          the Debian package and the image
#   release.sh all      all of it
. "$(dirname "$0")/common.sh"

here="$root/deploy/packages"
mkdir -p "$out"
rm -f "$out/SHA256SUMS"
sh "$here/programs.sh" x86_64-unknown-linux-gnu
sh "$here/deb.sh"
sh "$here/image.sh"
[ "${1:-}" = all ] || exit 0
for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do
    sh "$here/programs.sh" "$target"
    sh "$here/tarball.sh" "$target"
done
sh "$here/sbom.sh" materials > "$out/millrace-$version.cdx.json"
cd "$out"
sha256sum "millrace_${version}_amd64.deb" "millrace-$version"* > SHA256SUMS
cat SHA256SUMS
