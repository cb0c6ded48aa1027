#!/bin/sh
# Lays out what a package holds, below DIRECTORY as below /: the programs that programs.sh has built for a target, units,
# pages, completions, documents.
#
#   stage.sh x86_64-unknown-linux-gnu DIRECTORY
. "$(dirname "$0")/common.sh"

target=$1
stage=$2
manuals="$out/x86_64-unknown-linux-gnu/millrace-manuals"
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

"$manuals" man "$made/man"
"$manuals" completions "$made/completions"

for program in $programs; do
    install -D -m 755 "$out/$target/$program" "$stage/usr/bin/$program"
done

put() { install -D -m 644 "$1" "$stage/$2"; }

for unit in "$root"/deploy/systemd/*.service; do put "$unit" "usr/lib/systemd/system/$(basename "$unit")"; done
put "$root/deploy/systemd/sysusers.d/millrace.conf" usr/lib/sysusers.d/millrace.conf
put "$root/deploy/systemd/tmpfiles.d/millrace.conf" usr/lib/tmpfiles.d/millrace.conf

for page in "$made"/man/*; do
    put "$page" "usr/share/man/man8/$(basename "$page")"
    gzip -9n "$stage/usr/share/man/man8/$(basename "$page")"
done
for program in $programs; do
    put "$made/completions/bash/$program.bash" "usr/share/bash-completion/completions/$program"
    put "$made/completions/zsh/_$program" "usr/share/zsh/vendor-completions/_$program"
    put "$made/completions/fish/$program.fish" "usr/share/fish/vendor_completions.d/$program.fish"
done

doc=usr/share/doc/millrace
sh "$root/deploy/packages/sbom.sh" licences > "$made/licences"
put "$made/licences" "$doc/third-party-licences.txt"
gzip -9n "$stage/$doc/third-party-licences.txt"

# Where the links of README.md lead.
for file in README.md README.zh-CN.md GLOSSARY.md SECURITY.md; do put "$root/$file" "$doc/$file"; done
for file in "$root"/docs/*; do [ -f "$file" ] && put "$file" "$doc/docs/$(basename "$file")"; done
for file in "$root"/docs/zh-CN/*; do put "$file" "$doc/docs/zh-CN/$(basename "$file")"; done
for file in "$root"/deploy/config/*.toml; do put "$file" "$doc/examples/$(basename "$file")"; done
for file in rules.yaml alerts.yaml; do put "$root/deploy/mixin/$file" "$doc/examples/prometheus/$file"; done
for file in "$root"/deploy/mixin/dashboards/*; do put "$file" "$doc/examples/grafana/$(basename "$file")"; done
