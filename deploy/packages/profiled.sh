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

profile=$(echo "$here"/programs.llvm*.profdata)
recorded_by=${profile##*.llvm}
recorded_by=${recorded_by%.profdata}
version=$("$rustc" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if ! [ -e "$profile" ]; then
    echo "built without a profile: there is not one at $profile" >&2
    exit
fi
case $profile in
*[[:space:]]*)
    echo "built without its profile: the path of this checkout has blanks" >&2
    exit
    ;;
esac
# An older compiler cannot read it.
if [ "${version:-0}" -lt "$recorded_by" ]; then
    echo "built without its profile: that is of LLVM $recorded_by, this compiler has ${version:-none}" >&2
    exit
fi
if [ "$(of)" != "$(cat "$here/programs.profile-of")" ]; then
    echo "the profile is of another compiler or another Cargo.lock, and does little: the programs take more CPU" >&2
fi
# Functions that have changed since are no reason to warn whoever builds.
echo "-Cprofile-use=$profile -Cllvm-args=-no-pgo-warn-mismatch"
