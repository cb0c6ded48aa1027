#!/bin/sh
# What lintian says of the Debian package, what must not be in the programs, and what the shells say of completions.
. "$(dirname "$0")/../common.sh"

need lintian lintian
deb="$out/millrace_${version}_amd64.deb"
passed=0
ok() { echo "ok: $*"; passed=$((passed + 1)); }

lintian --allow-root --fail-on error,warning,info --display-info "$deb"
ok "lintian has nothing to say"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb -x "$deb" "$work"
for program in $programs; do
    for path in "$root" "${CARGO_HOME:-$HOME/.cargo}" "$HOME/.rustup"; do
        if grep -qaF "$path/" "$work/usr/bin/$program"; then
            echo "FAILED: $program holds the path $path" >&2
            exit 1
        fi
    done
    bash -n "$work/usr/share/bash-completion/completions/$program"
done
ok "no path of this machine is in the programs"
# shellcheck disable=SC2016 # for bash
said=$(bash -c '. "$1"; COMP_WORDS=(millrace-copier check-); COMP_CWORD=1; _millrace__copier millrace-copier check- millrace-copier
    echo "${COMPREPLY[@]}"' completion "$work/usr/share/bash-completion/completions/millrace-copier")
[ "$said" = check-config ] || { echo "FAILED: bash completes check- to '$said'" >&2; exit 1; }
ok "bash completes"
echo "$passed passed, 0 failed"
