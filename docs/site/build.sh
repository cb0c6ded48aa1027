#!/bin/sh
# The site, from the pages as they lie in the repository, so that their links are right in both places. Ends with a look
# at every link of it. Needs mdbook and python3.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
book="$root/target/book"
site="$root/target/site"

rm -rf "$book" "$site"
mkdir -p "$book/src"
cp "$root/docs/site/book.toml" "$book/"
# Beside the pages, what they link to.
(cd "$root" && cp -r --parents ./*.md LICENSE docs deploy/systemd deploy/mixin \
    deploy/helm/millrace/README.md deploy/helm/millrace/ci "$book/src/")
rm -r "$book/src/docs/site"
# From the root, where mdbook wants it.
sed 's#](\.\./\.\./#](#; t; s#](\.\./#](docs/#' "$root/docs/site/SUMMARY.md" > "$book/src/SUMMARY.md"

"${MDBOOK:-mdbook}" build "$book"
# Links to a folder of the repository find a list of what is in it.
for folder in systemd mixin; do
    files=$(cd "$site/deploy/$folder" && find . -type f | sort | sed 's#^\./\(.*\)#<li><a href="\1">\1</a></li>#')
    printf '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>%s</title>\n<ul>\n%s\n</ul>\n</html>\n' \
        "deploy/$folder" "$files" > "$site/deploy/$folder/index.html"
done
sed -i 's/<html lang="en"/<html lang="zh-CN"/' "$site/README.zh-CN.html" "$site"/docs/zh-CN/*.html
python3 "$root/docs/site/links.py" "$site"
echo "open $site/index.html"
