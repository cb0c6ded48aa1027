#!/bin/sh
# Records which code of the programs runs how often under load, into programs.llvm*.profdata beside this file: the compiler
# lays out and inlines release builds by it (docs/benchmarks.md). To be done before a release, once the versions in Cargo.lock
# are those of the release, as root, on x86_64; takes half an hour.
#
# Functions are known by names that hold the compiler and the versions and features of a crate and of all that it depends on,
# so that each kind of build has records of its own. What is not known is compiled as if there were none.
. "$(dirname "$0")/common.sh"

here="$root/deploy/packages"
work="$target_dir/profile"
cargo=${CARGO:-cargo}
rustc=${RUSTC:-rustc}
host=$(own_target)
version=$("$rustc" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
[ "$host" = x86_64-unknown-linux-gnu ] || { echo "profile.sh: this needs an x86_64 machine with glibc" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "profile.sh: please run as root: the load needs network namespaces" >&2; exit 1; }
merge="$("$rustc" --print sysroot)/lib/rustlib/$host/bin/llvm-profdata"
[ -x "$merge" ] || rustup component add llvm-tools >&2 || { echo "profile.sh: please install $merge" >&2; exit 1; }

# What makes the load. Its own code is not recorded.
(cd "$root" && CARGO_TARGET_DIR="$work/load" "$cargo" build --release --locked -p millrace-lab)
(cd "$root" && CARGO_TARGET_DIR="$work/load" "$cargo" build --release --locked -p millrace-capture --example reflector)

rm -rf "$work/counts" "$work/profiles"
mkdir -p "$work/counts" "$work/profiles"
# Counts are written at the end, to a file that is none of the program's own.
export MILLRACE_COPIER_NO_LANDLOCK=true MILLRACE_COPIER_RECORD_NO_LANDLOCK=true MILLRACE_INTERCEPTOR_NO_LANDLOCK=true
# The programs of `make build` and of the Debian package, then the static ones.
for target in "$host" x86_64-unknown-linux-musl; do
    COUNTED="$work/counts" MILLRACE_OUT="$work" CARGO_TARGET_DIR="$work" sh "$here/programs.sh" "$target"
    # Those of build scripts and macros, which the compiler runs.
    rm -f "$work"/counts/*
    for program in $programs; do
        mv "$work/$target/$program" "$work/load/release/$program"
    done
    # Plain text, with more rounds; then TLS, protocol modules, recordings and IPv6.
    lab="$work/load/release/millrace-lab"
    "$lab" bench --rounds 2 --sessions 6000
    "$lab" bench turns --seconds 3
    "$lab" bench --rounds 1 --sessions 6000 --tls
    "$lab" bench turns --seconds 2 --redis --protocol
    "$lab" bench turns --seconds 2 --recorded --tls --protocol
    "$lab" demo --seconds 10
    "$merge" merge --sparse -o "$work/profiles/$target" "$work/counts"
done
"$merge" merge --sparse -o "$work/merged" "$work/profiles"
rm -f "$here"/programs.llvm*.profdata
mv "$work/merged" "$here/programs.llvm$version.profdata"
sh "$here/profiled.sh" of > "$here/programs.profile-of"
ls -l "$here/programs.llvm$version.profdata"
echo "cargo does not see that the profile is another: cargo clean --release, then make build" >&2
