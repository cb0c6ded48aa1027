"""What a roll-out has made of a live server."""

testinfra_hosts = ["ansible://millrace_copiers"]


def test_its_copier_runs_and_will_run_after_the_next_start(host):
    service = host.service("millrace-copier@main")
    assert service.is_running and service.is_enabled


def test_its_copier_speaks_to_this_host_alone(host):
    assert host.socket("tcp://127.0.0.1:36530").is_listening
    assert not host.socket("tcp://0.0.0.0:36530").is_listening


def test_its_copier_has_what_it_needs(host):
    assert host.run("millrace-copier check --config /etc/millrace/copier-main.toml").rc == 0


def test_only_millrace_reads_the_configuration_and_the_key(host):
    for path in ("/etc/millrace/copier-main.toml", "/etc/millrace/tls/copier-key.pem"):
        file = host.file(path)
        assert (file.user, file.group, file.mode) == ("root", "millrace", 0o640)


def test_nothing_of_real_servers_runs_here(host):
    for name in ("millrace-interceptor", "millrace-router-agent"):
        assert not host.service(name).is_running
