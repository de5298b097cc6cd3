"""A local HTTP server that speaks the chat completions API and misbehaves as it is told to."""
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def status(code: int, message: str = "no", **headers: str):
    "An error of that number; `retry_after=` becomes a header."
    return ("status", code, message, {name.replace("_", "-"): value for name, value in headers.items()})


class ChatServer(ThreadingHTTPServer):
    """`script[text]` lists what happens to the first, second, ... request whose last message is `text`; afterwards all is well.

    An entry is a `status(...)` or a word of `Handler.answer`.
    """
    daemon_threads, request_queue_size = True, 512

    def __init__(self, script: dict[str, list] | None = None, default: str = "ok"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.default = script or {}, default
        self.calls: Counter[str] = Counter()  # requests by the text of the last message
        self.order: list[str] = []
        self.bodies: list[dict] = []
        self.keys: set[str] = set()  # Authorization headers seen
        self.billed: list[tuple[int, int]] = []  # tokens of every request that was worked on
        self.lock, self.on_call, self.pause = threading.Lock(), None, 0.0
        self.under_way = self.most_under_way = 0
        self.files: dict[str, bytes] = {}
        self.end, self.refusal = "completed", ""  # how a batch ends
        self.batches: dict[str, dict] = {}
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": .02}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str: return f"http://127.0.0.1:{self.server_port}/v1"
    @property
    def total(self) -> int: return len(self.order)

    def __enter__(self): return self
    def __exit__(self, *error): self.shutdown(); self.server_close()
    def handle_error(self, request, client_address): pass  # a client that went away is part of the game


def completion(asked: dict, text: str | None, finish: str = "stop", **more: Any) -> dict:
    sent = sum(len(m["content"].encode()) for m in asked["messages"])
    message = {"role": "assistant", "content": text, **more}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": sent // 4 + 8, "completion_tokens": 6, "total_tokens": sent // 4 + 14}}


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def log_message(self, *_): pass

    def send(self, body: Any, code: int = 200, kind: str = "application/json", declared: int | None = None, **headers: str):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(declared or len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def abort(self):
        "Reset the connection instead of closing it."
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files": return self.upload(sent)
        if self.path == "/v1/batches": return self.submit(json.loads(sent))
        asked = json.loads(sent)
        text = asked["messages"][-1]["content"]
        server = self.server
        with server.lock:
            what = (server.script.get(text, [])[server.calls[text]:server.calls[text] + 1] or [server.default])[0]
            server.calls[text] += 1
            server.order.append(text)
            server.bodies.append(asked)
            server.keys.add(self.headers.get("Authorization", ""))
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            count = server.total
        try:
            if server.on_call: server.on_call(count)
            if server.pause: time.sleep(server.pause)
            self.answer(what, asked, text)
        finally:
            with server.lock: server.under_way -= 1

    def answer(self, what, asked: dict, text: str):
        if isinstance(what, tuple):
            _, code, message, headers = what
            echo = message.replace("{key}", self.headers.get("Authorization", ""))
            code_name = "insufficient_quota" if "quota" in message else None
            return self.send({"error": {"message": echo, "code": code_name, "type": "x"}}, code, **headers)
        good = completion(asked, f"reply to {text}")
        self.server.billed.append((good["usage"]["prompt_tokens"], good["usage"]["completion_tokens"]))
        data = json.dumps(good).encode()
        match what:
            case "ok": self.send(good)
            case "slow": time.sleep(2.5); self.send(good)
            case "reset": self.abort()
            case "cut": self.send(data[:40], declared=len(data)); self.wfile.flush(); time.sleep(.02); self.abort()
            case "truncated": self.send(data[:-30])
            case "empty": self.send({**good, "choices": []})
            case "refusal": self.send(completion(asked, None, refusal="I cannot help with that."))
            case "filtered": self.send(completion(asked, None, "content_filter"))
            case "silent": self.send(completion(asked, ""))
            case "length": self.send(completion(asked, "The cheeks are", "length"))
            case "html": self.send(b"<html>busy</html>", kind="text/html")
            case "list": self.send([1, 2])
            case "model": self.send({**good, "model": "another-model"})
            case "echo": self.send(completion(asked, f"your key is {self.headers.get('Authorization')}") | {"model": asked["model"]})
            case "nousage": self.send({k: v for k, v in good.items() if k != "usage"})
            case "trickle":
                self.send(b"", declared=len(data))
                for byte in data:
                    self.wfile.write(bytes([byte])); self.wfile.flush(); time.sleep(.05)
            case _: raise AssertionError(what)

    # ------------------------------------------------------------ the Batch API

    def upload(self, sent: bytes):
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = BytesParser(policy=HTTP).parsebytes(head + sent).get_payload()
        data = next(p for p in parts if p.get_filename()).get_payload(decode=True)
        name = f"file-{len(self.server.files)}"
        self.server.files[name] = data
        self.send({"id": name, "object": "file", "bytes": len(data), "created_at": 1, "filename": "x", "purpose": "batch", "status": "processed"})

    def submit(self, asked: dict):
        server, name = self.server, f"batch_{len(self.server.batches)}"
        if server.script.get("batch") and (what := server.script["batch"].pop(0)) != "ok":
            return self.answer(what, {"model": "", "messages": []}, "")
        lines = [json.loads(line) for line in server.files[asked["input_file_id"]].splitlines()]
        if server.refusal: lines = []
        good, bad = [], []
        for line in lines:
            text = line["body"]["messages"][-1]["content"]
            with server.lock: server.calls[text] += 1; server.order.append(text)
            what = server.script.get(text, ["ok"])[0]
            row = {"id": "r", "custom_id": line["custom_id"], "error": None}
            if what == "drop": continue
            if isinstance(what, tuple):
                bad.append({**row, "response": {"status_code": what[1], "request_id": "", "body": {"error": {"message": what[2]}}}})
            elif what == "expired":
                server.script[text] = ["ok"]
                bad.append({**row, "response": None, "error": {"code": "batch_expired", "message": "too late"}})
            else:
                body = completion(line["body"], f"reply to {text}") | ({"model": "another-model"} if what == "model" else {})
                good.append({**row, "response": {"status_code": 200, "request_id": "", "body": {**body, "choices": []} if what == "empty" else body}})
        for kind, rows in (("output", good[::-1]), ("error", bad)):  # the order of the answers is not that of the questions
            if rows: server.files[f"{name}-{kind}"] = b"".join(json.dumps(r).encode() + b"\n" for r in rows)
        server.batches[name] = {
            "id": name, "object": "batch", "endpoint": asked["endpoint"], "input_file_id": asked["input_file_id"], "created_at": 1,
            "completion_window": asked["completion_window"], "status": "validating", "metadata": asked.get("metadata"),
            "output_file_id": f"{name}-output" if good else None, "error_file_id": f"{name}-error" if bad else None,
            "errors": {"object": "list", "data": [{"code": "x", "message": server.refusal}]} if server.refusal else None,
            "request_counts": {"total": len(lines), "completed": len(good), "failed": len(bad)}, "_polls": 0}
        self.send(self.public(server.batches[name]))

    def public(self, batch: dict) -> dict: return {k: v for k, v in batch.items() if not k.startswith("_")}

    def do_GET(self):
        if match := re.fullmatch(r"/v1/batches/(\w+)", self.path):
            batch = self.server.batches[match[1]]
            batch["_polls"] += 1
            if batch["_polls"] >= 2: batch["status"] = self.server.end
            return self.send(self.public(batch))
        if match := re.fullmatch(r"/v1/files/([\w-]+)/content", self.path):
            return self.send(self.server.files[match[1]], kind="application/octet-stream")
        if self.path.startswith("/v1/batches"):
            return self.send({"object": "list", "data": [self.public(b) for b in self.server.batches.values()], "has_more": False})
        self.send({"error": {"message": "unknown path"}}, 404)
