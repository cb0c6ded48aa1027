#!/bin/sh
# Tests of the Ansible collection: its form, what it refuses, and a whole life on hosts of namespaces. Needs root.
#
#   run.sh [ARGUMENTS OF PYTEST]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
work="${CARGO_TARGET_DIR:-$root/target}/ansible"
cargo=${CARGO:-cargo}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
[ "$(id -u)" = 0 ] || { echo "ansible: needs root, for namespaces" >&2; exit 1; }
mkdir -p "$work"

# Programs, and the packages that have them.
missing=""
for pair in nsenter:util-linux mmdebstrap:mmdebstrap ssh:openssh-client dpkg-deb:dpkg nft:nftables ip:iproute2 shellcheck:shellcheck; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
# Package names have no blanks: they are to be split.
# shellcheck disable=SC2086
[ -z "$missing" ] || { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >/dev/null \
    || { echo "ansible: please install$missing" >&2; exit 1; }

if ! cmp -s "$here/requirements.txt" "$work/venv/requirements.txt"; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$work/venv/"
fi

# The release, and the programs that make traffic.
MILLRACE_DEB=${MILLRACE_DEB:-}
if [ -z "$MILLRACE_DEB" ]; then
    sh "$root/deploy/packages/programs.sh" x86_64-unknown-linux-gnu
    sh "$root/deploy/packages/deb.sh"
    MILLRACE_DEB="${MILLRACE_OUT:-$root/target/packages}/millrace_${version}_amd64.deb"
fi
MILLRACE_LAB=${MILLRACE_LAB:-}
if [ -z "$MILLRACE_LAB" ]; then
    (cd "$root" && "$cargo" build --release --locked -p millrace-lab)
    MILLRACE_LAB="$(dirname "$work")/release/millrace-lab"
fi

# The file system that all hosts begin with.
packages=systemd,systemd-sysv,dbus,nftables,iproute2,procps,libpcap0.8,python3-minimal,python3-apt,openssh-server,curl,jq
base="$work/base"
if [ "$(cat "$work/base.packages" 2>/dev/null)" != "$packages" ]; then
    mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$work/base.tar"
    rm -rf "$base"
    mkdir "$base"
    # Device files are made at each start.
    tar -C "$base" --exclude='./dev/*' -xf "$work/base.tar"
    rm "$work/base.tar"
    echo "$packages" > "$work/base.packages"
fi
install -D -m 755 "$MILLRACE_LAB" "$base/opt/millrace-lab"

export MILLRACE_DEB MILLRACE_LAB MILLRACE_ANSIBLE_WORK="$work" MILLRACE_ANSIBLE_BASE="$base" PYTHONDONTWRITEBYTECODE=1
exec "$work/venv/bin/python" -m pytest -p no:cacheprovider "$@" "$here"
