#!/bin/sh
# Builds what the virtual machine runs, and runs it there: `make test-vm`. Where the machine cannot be made, that is
# said; with CI set it is an error.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cargo=${CARGO:-cargo}
programs=target/vm/programs

sh tests/vm/install-deps.sh || {
    echo "***" >&2
    echo "*** NO TESTS WITH IPVS: the virtual machine's programs are missing (tests/vm/install-deps.sh)" >&2
    echo "***" >&2
    [ -z "${CI:-}" ]
    exit
}
daemons="millrace-copier millrace-interceptor millrace-router-agent millrace-lab"
# As `make test` builds them.
$cargo build --locked -q --workspace --bins --tests
rm -rf "$programs"
mkdir -p "$programs"
# Debug information would only have to be read through a slow file system.
for daemon in $daemons; do
    strip --strip-debug -o "$programs/$daemon" "target/debug/$daemon"
done
built=$($cargo test --locked -q --workspace --test vm --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
strip --strip-debug -o "$programs/vm.test" "$built"
exec sh tests/vm/run.sh "$programs"
