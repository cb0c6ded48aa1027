#!/usr/bin/env python3
"""Which options a daemon's `config` may hold: those that the program itself lists.

`options.py DIRECTORY --write` puts them into values.schema.json of the chart; DIRECTORY has the programs.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

SCHEMA = Path(__file__).parents[2] / "deploy/helm/millrace/values.schema.json"
ROLES = {"copier": "copier", "interceptor": "interceptor", "routerAgent": "router-agent"}
# Not for a file; passwords do not belong into a ConfigMap.
OMITTED = {"help", "version", "config", "accounts"}
# `  -x, --services <LIST>` or `      --nat`; what is told of an option stands further to the right.
LINE = re.compile(r"^(?:  -., |      )--([a-z][a-z0-9-]*)( <)?", re.MULTILINE)


def of_program(program: Path) -> dict:
    """The options of a program, each as a reference to its form in the schema."""
    text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True, timeout=30).stdout
    found = {name: "value" if takes else "flag" for name, takes in LINE.findall(text) if name not in OMITTED}
    assert len(found) > 10, f"{program} --help lists {found}"
    return {name: {"$ref": f"#/$defs/{form}"} for name, form in sorted(found.items())}


def definitions(directory: Path) -> dict:
    """The parts of the schema that follow from the programs."""
    return {
        f"{key}Options": {
            "type": "object",
            "additionalProperties": False,
            "properties": of_program(directory / f"millrace-{role}"),
        }
        for key, role in ROLES.items()
    }


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] != "--write":
        sys.exit(__doc__)
    schema = json.loads(SCHEMA.read_text())
    schema["$defs"] |= definitions(Path(sys.argv[1]))
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n")
