"""docs/security.md: certificates by `millrace-copier certs` and by openssl, daemons that use them, and one that runs without root."""

from __future__ import annotations

import unittest

from guide import Operator, blocks
from hosts import Stage, eventually

PAGE = "docs/security.md"


class Security(unittest.TestCase):
    def setUp(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)
        self.operator = Operator(self.stage)
        self.hosts = self.stage.hosts
        self.blocks = [it for it in blocks(PAGE) if it.language == "sh"]

    def test_certificates_by_the_command(self):
        _, certs, *_ = self.blocks
        said = [self.run_on("client", command) for command, _ in certs.commands()]
        self.assertEqual([len(it.splitlines()) for it in said], [4, 2, 1])
        for line in "".join(f"{it}\n" for it in said).splitlines():
            words = line.split()
            self.assertEqual(words[::2], ["--ca", "--cert", "--key"])
            self.assertIn(": OK", self.run_on("client", f"openssl verify -CAfile {words[1]} {words[3]}"))
            self.assertEqual(self.run_on("client", f"stat -c %a {words[5]}"), "600")
        again = self.run_on("client", f"{certs.commands()[1][0]} || echo refused")
        self.assertRegex(again, "(?s)is there already.*--renew.*refused")
        self.carry("certs/")
        self.copies_with_them()

    def test_certificates_by_openssl(self):
        openssl = self.blocks[2]
        # The CA is made on the client, which is none of the hosts that use it.
        commands = [command for command, _ in openssl.commands()]
        self.assertEqual(len(commands), 5)
        said = [self.run_on("client", command) for command in commands]
        self.assertIn("copier-live1.pem: OK", said[3])
        self.assertIn("/millrace/copier/live1", said[4])
        # For the interceptor, the same.
        for command in commands[1:]:
            self.run_on("client", command.replace("copier", "interceptor").replace("live1", "rs1"))
        self.carry("")
        self.copies_with_them()

    def carry(self, folder: str) -> None:
        """From the host of the CA to those that use it."""
        for host, name in (("live", "copier-live1"), ("assistant", "interceptor-rs1")):
            for file in ("ca.pem", f"{name}.pem", f"{name}-key.pem"):
                text = self.hosts["client"].run(f"cat {folder}{file}")
                self.hosts[host].run(f"cat > {file} <<'END'\n{text}\nEND")

    def copies_with_them(self) -> None:
        daemons = self.blocks[0]
        self.stage.serve("live", 80)
        self.stage.serve("target", 8080)
        self.operator.follow(blocks("README.md")[7])
        (interceptor, _), (copier, _) = daemons.commands()
        self.operator.start("assistant", interceptor)
        self.operator.start("live", copier)
        self.stage.load("198.18.2.10:80")
        self.operator.settled(40)
        self.operator.end("live", "millrace-copier")
        self.assertEqual(self.stage.streams("live"), self.stage.streams("target"))
        # What they are for: the interceptor takes nobody else.
        copier = self.hosts["live"].start("millrace-copier -x 80-198.18.2.20:8080 -s 198.18.2.30 --insecure")
        self.stage.load("198.18.2.10:80")
        ready = self.hosts["live"].run("sleep 3; curl -s http://127.0.0.1:36530/readyz")
        self.assertTrue(copier.alive() and not ready.startswith("ready"), ready)
        self.assertEqual(len(self.stage.streams("target")), 40)

    def test_without_root(self):
        """An interceptor with one capability and as nobody: it starts and is ready."""
        [(command, _)] = self.blocks[3].commands()
        host = self.hosts["assistant"]
        running = host.start(command)
        eventually(command, lambda: not running.alive() or host.run("curl -s http://127.0.0.1:36531/readyz", False).startswith("ready"))
        self.assertTrue(running.alive(), running.said())
        user = host.run("ps -o user= -C millrace-interceptor")
        self.assertEqual(user.split()[0], "nobody")

    def run_on(self, host: str, command: str) -> str:
        print(f"    {host}: {command}", flush=True)
        return self.hosts[host].run(command)
