#!/bin/sh
# Says the compiler's flags of a release build that is laid out by the profile beside this file (profile.sh); nothing where
# that cannot be.
#
#   profiled.sh      the flags
#   profiled.sh of   what names of functions depend on
set -eu

here=$(cd "$(dirname "$0")" && pwd)
rustc=${RUSTC:-rustc}
of() {
    "$rustc" -V
    sha256sum < "$here/../../Cargo.lock"
}
if [ "${1:-}" = of ]; then
    of
    exit
fi

without() { # WHY
    echo "built without its profile: $1" >&2
    exit 0
}

profile=$(echo "$here"/programs.llvm*.profdata)
recorded_by=${profile##*.llvm}
recorded_by=${recorded_by%.profdata}
version=$("$rustc" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
[ -e "$profile" ] || without "there is not one at $profile"
case $profile in *[[:space:]]*) without "the path of this checkout has blanks" ;; esac
# An older compiler cannot read it.
[ "${version:-0}" -ge "$recorded_by" ] || without "that is of LLVM $recorded_by, this compiler has ${version:-none}"
if [ "$(of)" != "$(cat "$here/programs.profile-of")" ]; then
    echo "the profile is of another compiler or another Cargo.lock, and does little: the programs take more CPU" >&2
fi
# Functions that have changed since are no reason to warn whoever builds.
echo "-Cprofile-use=$profile -Cllvm-args=-no-pgo-warn-mismatch"
