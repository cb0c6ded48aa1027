"""The filters by themselves."""

from __future__ import annotations

import importlib.util
import tomllib

import pytest
from ansible.errors import AnsibleFilterError
from conftest import SOURCE

module = importlib.util.spec_from_file_location("config", SOURCE / "plugins/filter/config.py")
config = importlib.util.module_from_spec(module)
module.loader.exec_module(config)

SPEC = {
    "services": {"type": "list"},
    "memory": {"type": "int"},
    "percent": {"type": "float"},
    "nat": {"type": "bool"},
    "ramp": {"type": "str"},
}


def test_values_get_the_type_of_their_option():
    options = {"services": ["80-198.18.2.20:8080"], "memory": "512", "percent": 20, "nat": "yes", "ramp": "10%,100%"}
    wanted = {"services": ["80-198.18.2.20:8080"], "memory": 512, "percent": 20.0, "nat": True, "ramp": "10%,100%"}
    text = config.to_toml(options, SPEC)
    assert tomllib.loads(text) == wanted
    assert text.splitlines() == sorted(text.splitlines())


@pytest.mark.parametrize("text", ['a "quoted" \\ word', "two\nlines", "\x7f\t\u0001", "Ω"])
def test_any_text_is_read_back_as_it_was(text):
    assert tomllib.loads(config.to_toml({"ramp": text}, SPEC)) == {"ramp": text}


def test_an_option_without_a_value_is_left_out():
    assert config.to_toml({"memory": None}, SPEC) == ""


@pytest.mark.parametrize("options", [{"memory": "much"}, {"memory": [1]}, {"nat": "perhaps"}, {"ramps": "1"}])
def test_what_does_not_fit_is_refused(options):
    with pytest.raises(AnsibleFilterError):
        config.to_toml(options, SPEC)


def test_options_that_differ_are_named():
    old = "# Made by Ansible\n" + config.to_toml({"memory": 1, "ramp": "a = b", "nat": True}, SPEC)
    new = config.to_toml({"memory": 2, "ramp": "a = b", "percent": 1}, SPEC)
    assert config.changed_options(old, new) == ["memory", "nat", "percent"]
    assert config.changed_options("", new) == ["memory", "percent", "ramp"]
