"""What is refused before anything is changed, and in which words."""

from __future__ import annotations

import re

import pytest
import yaml
from conftest import HERE

GOOD = {
    "millrace_source": "/srv/millrace/",
    "millrace_tls": "own_ca",
    "millrace_tls_directory": "/nonexistent",
    "millrace_copier_instances": {"main": {"services": ["80-198.18.2.20:8080"], "interceptors": ["198.18.2.20"]}},
}


def copier(**options):
    return {"millrace_copier_instances": {"main": {**GOOD["millrace_copier_instances"]["main"], **options}}}


SUM = "sha256:" + "0" * 64
# Name: role, what differs from GOOD, words of the refusal; none where it is taken.
CASES = {
    "good": ("copier", {}, None),
    "good_interceptor": ("interceptor", {"millrace_interceptor_options": {"mode": "link", "devices": ["eth0"]}}, None),
    "good_agent": ("router_agent", {"millrace_router_agent_options": {"allow": ["198.18.2.20:8080"]}}, None),
    "good_ipv6": ("copier", copier(services=["[2001:db8::1]:80-[2001:db8::2]:8080"]), None),
    "good_text": ("copier", copier(services="80-198.18.2.20:8080, 81-198.18.2.20:8081"), None),
    "no_source": ("copier", {"millrace_source": ""}, "ends in .deb, in .tar.gz or"),
    "odd_source": ("copier", {"millrace_source": "/srv/millrace.rpm"}, "ends in .deb, in .tar.gz or"),
    "url_without_checksum": ("copier", {"millrace_source": "https://packages.example.test/m.tar.gz"}, "64 hexadecimal digits"),
    "odd_checksum": ("copier", {"millrace_source": "/srv/m.tar.gz", "millrace_source_checksum": "md5:1"}, "64 hexadecimal digits"),
    "deb_without_version": ("copier", {"millrace_source": "/srv/m.deb", "millrace_source_checksum": SUM}, "names its version"),
    "deb_on_redhat": (
        "copier",
        {"millrace_source": "/srv/m.deb", "millrace_source_checksum": SUM, "millrace_version": "0.1.0", "case_family": "RedHat"},
        "which takes the .tar.gz",
    ),
    "without_systemd": ("copier", {"case_manager": "openrc"}, "runs on Linux with systemd"),
    "odd_tls": ("copier", {"millrace_tls": "maybe"}, "must be one of: own_ca, files, present, none"),
    "odd_domain": ("copier", {"millrace_trust_domain": "Example Test"}, "small letters, digits, dots"),
    "renewed_too_late": ("copier", {"millrace_certificate_renew_days": 90}, "less than millrace_certificate_days"),
    "no_copiers": ("copier", {"millrace_copier_instances": {}}, "name a copier with its options"),
    "list_of_copiers": ("copier", {"millrace_copier_instances": ["main"]}, "dict"),
    "odd_name": ("copier", {"millrace_copier_instances": {"Main Copier": {}}}, "is no name"),
    "unknown_option": ("copier", copier(sevices=["x"]), "sevices"),
    "no_services": ("copier", {"millrace_copier_instances": {"main": {"interceptors": ["198.18.2.20"]}}}, "missing required arguments: services"),
    "host_name": ("copier", copier(services=["80-target.example.test:8080"]), "without host names"),
    "swapped": ("copier", copier(services=["198.18.2.20:8080-80"]), "write [LIVE_IP:]LIVE_PORT-TARGET_IP:TARGET_PORT"),
    "no_interceptors": ("copier", copier(interceptors=[]), "has no interceptors"),
    "word_for_number": ("copier", copier(memory="much"), "memory"),
    "word_for_truth": ("copier", copier(nat="perhaps"), "nat"),
    "of_the_unit": ("copier", copier(daemon=True), "daemon"),
    "plain_text_beside_certificates": ("copier", copier(insecure=True), "insecure"),
    "same_admin": (
        "copier",
        {"millrace_copier_instances": {name: copier()["millrace_copier_instances"]["main"] for name in ("one", "two")}},
        "the same admin port",
    ),
    "odd_mode": ("interceptor", {"millrace_interceptor_options": {"mode": "sponge"}}, "must be one of: sink, link, nfqueue"),
    "nowhere": ("interceptor", {"millrace_tls": "none"}, "name the address to listen on"),
    "agent_option": ("router_agent", {"millrace_router_agent_options": {"pass_list": ["198.18.2.1"]}}, "pass_list"),
    "agent_nowhere": ("router_agent", {"millrace_tls": "none"}, "name the address to listen on"),
}


@pytest.fixture(scope="module")
def said(ansible, work) -> dict[str, str]:
    """What became of each case."""
    hosts = {name: {"ansible_connection": "local", "case_role": role, **GOOD, **differs} for name, (role, differs, _) in CASES.items()}
    inventory = work / "cases.yml"
    inventory.write_text(yaml.safe_dump({"cases": {"hosts": hosts}}))
    played = ansible.command("ansible-playbook", "-i", str(inventory), str(HERE / "refusals.yml"))
    assert set(played.counts("changed").values()) == {0}, played.text[-3000:]
    results = re.findall(r"^(?:failed|fatal): \[(\w+)\](.*)", played.text, re.MULTILINE)
    return {name: "".join(text for host, text in results if host == name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_words_that_help(name, said):
    words = CASES[name][2]
    if words is None:
        assert not said[name]
    else:
        assert words in said[name].replace("\\n", " ")
