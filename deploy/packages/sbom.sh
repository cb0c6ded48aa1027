#!/bin/sh
# What is linked into the programs: as a bill of materials, or their licences as text.
#
#   sbom.sh materials|licences
. "$(dirname "$0")/common.sh"

need python3 python3
target=x86_64-unknown-linux-gnu
cd "$root"
"${CARGO:-cargo}" metadata --locked --format-version 1 --filter-platform "$target" \
    | python3 "$root/deploy/packages/sbom.py" "$1" "$version" "$target"
