"""A server that logs in by caching_sha2_password and answers OK to every command, written from MySQL's protocol documentation:
MySQL 8 itself is in no registry that the tests reach. Usage: sha2_server.py PORT USER PASSWORD FILE; FILE gets a line for each
log-in (`full`, `fast`, `refused`) and each statement."""

import hashlib
import os
import socketserver
import struct
import sys
import threading

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PORT, USER, PASSWORD, FILE = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3].encode(), sys.argv[4]
METHOD = b"caching_sha2_password"
# LONG_PASSWORD, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_ATTRS, LENENC_CLIENT_DATA
CAPABILITIES = 0x1 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x80000 | 0x100000 | 0x200000
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
LOCK = threading.Lock()
KNOWN: set[bytes] = set()


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ other[n % len(other)] for n, a in enumerate(one))


def note(line: str) -> None:
    with LOCK, open(FILE, "a") as file:
        file.write(line + "\n")


class Session(socketserver.BaseRequestHandler):
    number = 0

    def send(self, payload: bytes) -> None:
        self.request.sendall(struct.pack("<I", len(payload))[:3] + bytes([self.number]) + payload)
        self.number = (self.number + 1) % 256

    def exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            piece = self.request.recv(count - len(got))
            if not piece:
                raise EOFError
            got += piece
        return got

    def receive(self) -> bytes:
        head = self.exactly(4)
        self.number = (head[3] + 1) % 256
        return self.exactly(int.from_bytes(head[:3], "little"))

    def handle(self) -> None:
        try:
            if self.log_in():
                self.commands()
        except (EOFError, ConnectionError):
            pass

    def log_in(self) -> bool:
        nonce = bytes(1 + byte % 127 for byte in os.urandom(20))
        low, high = CAPABILITIES & 0xFFFF, CAPABILITIES >> 16
        greeting = b"\x0a8.0.99\0" + struct.pack("<I", 7) + nonce[:8] + b"\0"
        greeting += struct.pack("<HBHHB", low, 255, 2, high, 21) + bytes(10) + nonce[8:] + b"\0" + METHOD + b"\0"
        self.send(greeting)
        response = self.receive()
        user, rest = response[32:].split(b"\0", 1)
        proof = rest[1 : 1 + rest[0]]
        expected = xor(sha(PASSWORD), sha(sha(sha(PASSWORD)), nonce))
        if user == USER and proof == expected and user in KNOWN:
            self.send(b"\x01\x03")
            return self.accept("fast")
        self.send(b"\x01\x04")
        if self.receive() != b"\x02":
            return self.refuse()
        self.send(b"\x01" + PEM)
        oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
        if user != USER or xor(KEY.decrypt(self.receive(), oaep), nonce) != PASSWORD + b"\0":
            return self.refuse()
        KNOWN.add(user)
        return self.accept("full")

    def accept(self, how: str) -> bool:
        note(how)
        self.send(b"\0\0\0\x02\0\0\0")
        return True

    def refuse(self) -> bool:
        note("refused")
        self.send(b"\xff" + struct.pack("<H", 1045) + b"#28000Access denied")
        return False

    def commands(self) -> None:
        while (command := self.receive())[0] != 1:
            if command[0] == 3:
                note(command[1:].decode())
            self.send(b"\0\0\0\x02\0\0\0")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 100


if __name__ == "__main__":
    Server(("0.0.0.0", PORT), Session).serve_forever()
