#!/bin/sh
# The archives of static programs: they need no library, and run; those for ARM in an emulator.
. "$(dirname "$0")/../common.sh"

need readelf binutils
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
ok() { echo "ok: $*"; passed=$((passed + 1)); }
fail() { echo "FAILED: $*" >&2; exit 1; }

for machine in x86_64 aarch64; do
    emulator=""
    if [ "$machine" != "$(uname -m)" ]; then
        emulator="qemu-$machine-static"
        need "$emulator" qemu-user-static
    fi
    name="millrace-$version-$machine-linux-musl"
    tar -C "$work" -xzf "$out/$name.tar.gz"
    for program in $programs; do
        file="$work/$name/usr/bin/$program"
        ! readelf -d "$file" | grep -q NEEDED || fail "$machine: $program needs a library"
        # An emulator, or none: it is to be split.
        # shellcheck disable=SC2086
        $emulator "$file" --version | grep -qx "$program $version" || fail "$machine: $program --version"
    done
    # shellcheck disable=SC2086
    $emulator "$work/$name/usr/bin/millrace-copier" check-config --insecure -x 80-198.18.2.20:8080 -s 198.18.2.30 >/dev/null \
        || fail "$machine: check-config"
    ok "$machine: static, and they run"
done
echo "$passed passed, 0 failed"
