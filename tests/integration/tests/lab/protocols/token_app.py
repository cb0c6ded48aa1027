"""A service that hands out tokens and wants them back: what a copy byte for byte cannot have. Usage: token_app.py PORT"""

import json
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SESSIONS: dict[str, str] = {}
COUNTS: dict[str, int] = {}
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/counts":
            with LOCK:
                return self.answer(200, COUNTS)
        if path == "/login":
            sid, csrf = secrets.token_hex(16), secrets.token_urlsafe(secrets.choice(range(12, 30)))
            with LOCK:
                SESSIONS[sid] = csrf
            self.count("login")
            return self.answer(200, {"user": 1, "csrf": csrf}, ("Set-Cookie", f"sid={sid}; Path=/; HttpOnly"))
        if path.startswith("/item/"):
            return self.judge("item", self.headers.get("X-Token"))
        self.count(f"{self.command} {path}")
        return self.answer(200, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if urlsplit(self.path).path == "/buy":
            return self.judge("buy", parse_qs(body).get("csrf", [""])[0])
        self.count(f"{self.command} {urlsplit(self.path).path}")
        return self.answer(200, {})

    def judge(self, what: str, token: str | None) -> None:
        sid = dict(part.split("=", 1) for part in self.headers.get("Cookie", "a=b").split("; ")).get("sid")
        with LOCK:
            good = token is not None and SESSIONS.get(sid) == token
        self.count(f"{what} {'accepted' if good else 'refused'}")
        self.answer(200 if good else 403, {"ok": good})

    def count(self, what: str) -> None:
        with LOCK:
            COUNTS[what] = COUNTS.get(what, 0) + 1

    def answer(self, status: int, content: dict, *headers: tuple[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
