#!/bin/sh
# Records which code of the programs runs how often under load, into programs.llvm*.profdata beside this file: the compiler lays
# out and inlines release builds by it (docs/benchmarks.md). To be done before a release, as root, on x86_64; takes half an hour.
#
# Functions are known by names that hold the compiler, the crate's version and its features, so that each kind of build has
# records of its own. What has changed since is compiled as if there were none.
. "$(dirname "$0")/common.sh"

work="$target_dir/profile"
cargo=${CARGO:-cargo}
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
profile="$root/deploy/packages/programs.llvm$version.profdata"
[ "$(id -u)" = 0 ] || { echo "profile.sh: please run as root: the load needs network namespaces" >&2; exit 1; }
merge="$sysroot/lib/rustlib/$host/bin/llvm-profdata"
[ -x "$merge" ] || rustup component add llvm-tools >&2

# What makes the load. Its own code is not recorded.
(cd "$root" && CARGO_TARGET_DIR="$work/load" "$cargo" build --release --locked -p millrace-lab)
(cd "$root" && CARGO_TARGET_DIR="$work/load" "$cargo" build --release --locked -p millrace-capture --example reflector)

rm -rf "$work/counts" "$work/profiles"
mkdir -p "$work/counts" "$work/profiles"
# The programs of `make build` and of the Debian package, then the static ones.
for target in "$host" x86_64-unknown-linux-musl; do
    COUNTED="$work/counts" MILLRACE_OUT="$work" CARGO_TARGET_DIR="$work" sh "$root/deploy/packages/programs.sh" "$target"
    # Those of build scripts and macros, which the compiler runs.
    rm -f "$work"/counts/*
    for program in $programs; do
        mv "$work/$target/$program" "$work/load/release/$program.counting"
        # Counts are written at the end, to a file that is none of the program's own.
        printf '#!/bin/sh\nexec "$0.counting" "$@" --no-landlock\n' > "$work/load/release/$program"
        chmod +x "$work/load/release/$program"
    done
    "$work/load/release/millrace-lab" bench --rounds 2 --sessions 6000
    "$work/load/release/millrace-lab" bench turns --seconds 3
    "$merge" merge --sparse -o "$work/profiles/$target" "$work/counts"
done
rm -f "$root"/deploy/packages/programs.llvm*.profdata
"$merge" merge --sparse -o "$profile" "$work/profiles"
ls -l "$profile"
