"""Looks at every link of the built site: python3 links.py DIRECTORY. Fails if one leads nowhere."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and the names in it that links may end with."""

    def __init__(self, text: str):
        super().__init__()
        self.links: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value and tag != "base":
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.names.add(value)


def main(site: Path) -> int:
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    wrong, count = [], 0
    for path, page in pages.items():
        # A server shows this page for addresses that it does not have: its links are those of the root.
        if path.name == "404.html":
            continue
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            name = unquote(parts.fragment)
            if target.is_dir():
                target /= "index.html"
            if not target.is_relative_to(site):
                wrong.append(f"{path.relative_to(site)}: {link} leaves the site")
            elif not target.is_file():
                wrong.append(f"{path.relative_to(site)}: {link} is not there")
            elif name and name not in pages[target].names:
                wrong.append(f"{path.relative_to(site)}: {link}: no such heading")
    print("\n".join(wrong), file=sys.stderr)
    print(f"{len(pages)} pages, {count} links, {len(wrong)} of them broken")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
