# What all scripts here share; they source it.
# shellcheck shell=sh disable=SC2034
set -eu
export LC_ALL=C TZ=UTC

root=$(cd "$(dirname "$0")" && pwd)
while ! [ -e "$root/Cargo.lock" ]; do root=$(dirname "$root"); done
# Everything that is made goes here.
out=${MILLRACE_OUT:-$root/target/packages}
target_dir=${CARGO_TARGET_DIR:-$root/target}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
programs="millrace-copier millrace-interceptor millrace-router-agent"
# The time of the last commit, so that the same source gives the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# The target that the compiler builds for by itself.
own_target() { "${RUSTC:-rustc}" -vV | sed -n 's/^host: //p'; }

# Says what is missing, and ends.
need() { # PROGRAM PACKAGE...
    needed=$1
    shift
    command -v "$needed" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$needed" >/dev/null 2>&1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing $*" >&2
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1 \
            || { apt-get update -q && apt-get install -y -q --no-install-recommends "$@"; } >/dev/null 2>&1 || true
    fi
    command -v "$needed" >/dev/null 2>&1 || { echo "$(basename "$0"): please install $* (for $needed)" >&2; exit 1; }
}
