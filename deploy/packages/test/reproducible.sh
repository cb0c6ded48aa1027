#!/bin/sh
# Two builds, the second from a clone elsewhere into another target directory, give the same bytes.
. "$(dirname "$0")/../common.sh"

[ -z "$(git -C "$root" status --porcelain)" ] || { echo "reproducible.sh: commit first: a clone is built" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone -q "$root" "$work/elsewhere"
sh "$root/deploy/packages/release.sh" all > "$work/first.log"
env -u CARGO_TARGET_DIR -u MILLRACE_OUT sh "$work/elsewhere/deploy/packages/release.sh" all > "$work/second.log"
diff "$out/SHA256SUMS" "$work/elsewhere/target/packages/SHA256SUMS" || {
    echo "FAILED: two builds differ" >&2
    exit 1
}
echo "ok: $(wc -l < "$out/SHA256SUMS") files, the same bytes from two builds"
echo "1 passed, 0 failed"
