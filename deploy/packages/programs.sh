#!/bin/sh
# Builds the three programs for TARGET, stripped, into target/packages/TARGET: the same bytes wherever the source and
# cargo's home are.
#
#   programs.sh x86_64-unknown-linux-gnu | x86_64-unknown-linux-musl | aarch64-unknown-linux-musl
. "$(dirname "$0")/common.sh"

target=$1
cargo=${CARGO:-cargo}
# ring has parts in C.
need gcc gcc
strip="strip"
need strip binutils
case $target in
"$(uname -m)"-*-musl) need musl-gcc musl-tools ;;
aarch64-*-musl)
    # The C library is Rust's own; of the cross compiler come the compiler and headers.
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    strip=aarch64-linux-gnu-strip
    export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc AR_aarch64_unknown_linux_musl=aarch64-linux-gnu-ar
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc
    ;;
esac
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    rustup target add "$target" >&2 || {
        echo "programs.sh: this toolchain cannot build for $target (rustup target add $target)" >&2
        exit 1
    }
fi

# Paths of this machine must not get into the programs. Nothing of the operator's own: flags change the bytes.
unset CARGO_ENCODED_RUSTFLAGS
RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$root=/millrace"
if [ -n "${COUNTED:-}" ]; then
    # Programs that count what of them runs, for profile.sh.
    RUSTFLAGS="$RUSTFLAGS -Cprofile-generate=$COUNTED"
else
    RUSTFLAGS="$RUSTFLAGS $(sh "$root/deploy/packages/profiled.sh")"
fi
export RUSTFLAGS
export CARGO_TARGET_DIR="$target_dir"
export CARGO_INCREMENTAL=0
packages=""
for program in $programs; do packages="$packages -p $program"; done
# What makes the pages runs here.
case $target in *-gnu) [ -n "${COUNTED:-}" ] || packages="$packages -p millrace-manuals" ;; esac
# As `make build` does for the machine's own target: functions have the names then by which the profile knows them.
unset CARGO_BUILD_TARGET
if [ "$target" = "$(own_target)" ]; then
    for_target="" built="$target_dir/release"
else
    for_target="--target $target" built="$target_dir/$target/release"
fi
# Those of another build must not be taken for these.
for program in $programs millrace-manuals; do rm -f "$built/$program"; done
# A build script of a dependency looks at the time, too: with that of the last commit all would be built anew after each.
# Neither names of packages nor of targets have blanks: they are to be split.
# shellcheck disable=SC2086
(cd "$root" && SOURCE_DATE_EPOCH=0 "$cargo" build --release --locked $for_target $packages)

mkdir -p "$out/$target"
for program in $programs; do
    "$strip" -R .comment -o "$out/$target/$program" "$built/$program"
done
if [ -e "$built/millrace-manuals" ]; then cp "$built/millrace-manuals" "$out/$target/"; fi
