#!/bin/sh
# Builds a kube-apiserver from the source package of Debian, which holds all that it needs, into a directory; and installs
# etcd. About 15 minutes on two cores.
#
# The program stays under the licence of its package (Apache-2.0).
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 64; }
mkdir -p "$1"
directory=$(cd "$1" && pwd)
[ ! -x "$directory/kube-apiserver" ] || exit 0
here=$(cd "$(dirname "$0")" && pwd)
missing=""
for pair in go:golang-go etcd:etcd-server; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
# Package names have no blanks: they are to be split.
# shellcheck disable=SC2086
[ -z "$missing" ] || { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >/dev/null \
    || { echo "$0: please install$missing" >&2; exit 1; }

. "$here/../debian.sh"
archive_of "$directory/apt" deb-src bookworm
mkdir -p "$directory/sources"
(cd "$directory/sources" && archive source --download-only --tar-only kubernetes >&2)

# Outside of a module, as this version was built in its time: its vendor directory has all that it needs.
export GOPATH="$directory/go" GO111MODULE=off GOCACHE="$directory/cache"
source="$GOPATH/src/k8s.io/kubernetes"
rm -rf "$source"
mkdir -p "$source"
tar -xf "$directory"/sources/kubernetes_*.orig.tar.* -C "$source" --strip-components=1
cd "$source"

# What the API's description is generated from, and where it goes to.
go build -o "$directory/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
described=$(grep -rl --include='*.go' '+k8s:openapi-gen=true' pkg staging/src | xargs -n 1 dirname \
    | grep -v 'sample-\|/test\|code-generator' \
    | sed 's|^staging/src/|k8s.io/kubernetes/vendor/|; s|^pkg/|k8s.io/kubernetes/pkg/|' | sort -u | paste -sd,)
"$directory/openapi-gen" -O zz_generated.openapi -p k8s.io/kubernetes/pkg/generated/openapi -r "$directory/report" \
    --go-header-file hack/boilerplate/boilerplate.generatego.txt -i "$described" --output-base "$GOPATH/src" >&2
go build -o "$directory/kube-apiserver" ./cmd/kube-apiserver
cd "$here"
rm -rf "$directory/go" "$directory/cache" "$directory/sources" "$directory/apt"
