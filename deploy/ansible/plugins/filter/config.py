# SPDX-License-Identifier: Apache-2.0
"""Filters for the configuration files of Millrace's daemons."""

from __future__ import annotations

import json

from ansible.errors import AnsibleFilterError

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


def _text(value):
    # The escapes of a JSON text are those of a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(name, value, kind):
    if isinstance(value, (list, tuple)):
        if kind != "list":
            raise AnsibleFilterError(f"'{name}' is one value, not a list")
        return "[" + ", ".join(_text(member) for member in value) + "]"
    if kind == "bool":
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise AnsibleFilterError(f"'{name}' is true or false, not '{value}'")
        return "true" if word in _TRUE else "false"
    if kind in ("int", "float"):
        try:
            number = int(value) if kind == "int" else float(value)
        except (TypeError, ValueError) as error:
            raise AnsibleFilterError(f"'{name}' is a number, not '{value}'") from error
        return str(number)
    return _text(value)


def to_toml(options, spec):
    """The configuration file that holds these options."""
    lines = []
    for name in sorted(options):
        if options[name] is None:
            continue
        if name not in spec:
            raise AnsibleFilterError(f"there is no option '{name}'")
        lines.append(f"{name} = {_value(name, options[name], spec[name].get('type', 'str'))}\n")
    return "".join(lines)


def changed_options(old, new):
    """Names of the options in which two files of to_toml differ."""

    def options(text):
        pairs = (line.split(" = ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {pair[0]: pair[-1] for pair in pairs if pair[0].strip()}

    old, new = options(old), options(new)
    return sorted(name for name in set(old) | set(new) if old.get(name) != new.get(name))


class FilterModule:
    """The filters, by name."""

    def filters(self):
        return {"to_toml": to_toml, "changed_options": changed_options}
