"""README.md of the chart: README.md.gotmpl with the values as a table, in the form of helm-docs.

A value is documented by the comment above it that begins with `# -- `.
"""

import json
import re

import yaml
from chart import CHART

KEY = re.compile(r"^( *)([A-Za-z]+):(.*)$")
TABLE = '{{ template "chart.valuesTable" . }}'


def rows(text: str):
    """Name and description of each documented value, in their order."""
    path, comment = [], None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = stripped.removeprefix("# -- ")
        elif stripped.startswith("#"):
            comment = comment and f"{comment} {stripped.removeprefix('#').strip()}"
        elif found := KEY.match(line):
            path = path[: len(found[1]) // 2] + [found[2]]
            if comment:
                yield ".".join(path), comment
            comment = None
        else:
            comment = None


def look_up(values, name: str):
    for key in name.split("."):
        values = values[key]
    return values


def render() -> str:
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    table = ["| Key | Default | Description |", "|---|---|---|"]
    for name, description in rows(text):
        default = json.dumps(look_up(values, name), separators=(",", ":"))
        table.append(f"| {name} | `{default}` | {description.replace('|', chr(92) + '|')} |")
    return (CHART / "README.md.gotmpl").read_text().replace(TABLE, "\n".join(table))
