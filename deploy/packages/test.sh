#!/bin/sh
# All tests of what is released. Needs root, and half an hour, most of it for the second build.
. "$(dirname "$0")/common.sh"

here="$root/deploy/packages"
need shellcheck shellcheck
shellcheck "$here"/*.sh "$here"/test/*.sh "$here"/debian/p*
sh "$here/test/reproducible.sh"
sh "$here/test/package.sh"
sh "$here/test/static.sh"
sh "$here/test/installed.sh"
sh "$here/test/image.sh"
