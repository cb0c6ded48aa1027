#!/bin/sh
# Says the compiler's flags of a release build that is laid out by the profile beside this file (profile.sh); nothing where that
# cannot be.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
profile=$(echo "$here"/programs.llvm*.profdata)
[ -e "$profile" ] || exit 0
recorded_by=${profile##*.llvm}
version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
case $profile in
*[[:space:]]*) echo "built without its profile: the path of this checkout has blanks" >&2 ;;
*)
    # An older compiler cannot read it. Functions that have changed since are no reason to warn whoever builds.
    if [ "${version:-0}" -ge "${recorded_by%.profdata}" ]; then
        echo "-Cprofile-use=$profile -Cllvm-args=-no-pgo-warn-mismatch"
    else
        echo "built without its profile: that is of LLVM ${recorded_by%.profdata}, this compiler has ${version:-none}" >&2
    fi
    ;;
esac
