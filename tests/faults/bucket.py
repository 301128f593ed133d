"""A bucket on this machine: gcp-storage-emulator, with what it lacks and with faults.

It lacks generations in preconditions and headers, and `moveTo`. A fault is a function (method,
path) -> a status, "cut" (the connection ends within a request), "stall" (no answer), or None.
"""

import contextlib
import functools
import http.server
import json
import logging
import pathlib
import sys
import threading
import time
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator import server, storage
from gcp_storage_emulator.handlers import buckets

logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
logging.getLogger("api").setLevel(logging.CRITICAL)

ENVIRONMENT = {"GCE_METADATA_ROOT": "127.0.0.1:9", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
Fault = Callable[[str, str], int | str | None]


class Service:
    """The server; `requests` counts all that arrived, of `paths`; `fault` may answer instead."""

    def __init__(self, port: int = 0) -> None:
        self.storage = storage.Storage(use_memory_fs=True)
        self.lock = threading.RLock()
        self.requests = 0
        self.paths: list[str] = []
        self.fault: Fault | None = None
        handler = functools.partial(_Handler, self)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that no longer waits
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead clients to this server."""
        return {
            **ENVIRONMENT, "STORAGE_EMULATOR_HOST": self.url, "TENSORSTORE_GCS_HTTP_URL": self.url,
        }  # fmt: skip

    def create(self, bucket: str) -> str:
        """Create a bucket and return its address."""
        with self.lock:
            buckets.create_bucket(bucket, self.storage)
        return f"gs://{bucket}"

    @contextlib.contextmanager
    def failing(self, fault: Fault):
        """Answer by a fault in this context."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    def names(self, bucket: str) -> list[str]:
        with self.lock:
            return sorted(self.storage.objects.get(bucket, {}))

    def read(self, bucket: str, name: str) -> bytes:
        with self.lock:
            return self.storage.get_file(bucket, name)

    def write(self, bucket: str, name: str, content: bytes) -> None:
        """Store an object; its generation is new, as the emulator's own."""
        about = {"name": name, "bucket": bucket, "size": str(len(content)), "contentType": ""}
        about |= {
            "generation": str(time.time_ns()),
            "metageneration": "1",
            "crc32c": "",
            "md5Hash": "",
        }
        with self.lock:
            self.storage.create_file(bucket, name, content, about)

    def remove(self, bucket: str, name: str) -> None:
        with self.lock:
            self.storage.delete_file(bucket, name)

    def download(self, bucket: str, folder: pathlib.Path, below: str = "") -> pathlib.Path:
        """Write the objects below a name into a folder."""
        for name in self.names(bucket):
            if name.startswith(below):
                file = folder / name.removeprefix(below).lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.read(bucket, name))
        return folder

    def upload(self, bucket: str, folder: pathlib.Path, below: str) -> None:
        """Store the files of a folder below a name."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.write(bucket, f"{below}/{file.relative_to(folder).as_posix()}", file.read_bytes())


class _Handler(server.RequestHandler):
    def __init__(self, service: Service, *args) -> None:
        self.service, self.generation = service, "0"
        super().__init__(service.storage, *args)

    def _answer(self, method: str) -> None:
        service = self.service
        service.requests += 1
        service.paths.append(unquote(urlsplit(self.path).path))
        fault = service.fault and service.fault(method, unquote(self.path))
        if fault == "stall":
            time.sleep(600)
        if fault == "cut":
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self.connection.close()
            return
        if isinstance(fault, int):
            self._refuse(fault)
            return
        with service.lock:
            if refusal := self._precondition():
                self._refuse(refusal)
            elif "/moveTo/o/" in self.path:
                self._move()
            else:
                server.Router(self).handle(method)

    def _refuse(self, status: int) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        error = {"error": {"code": status, "message": f"fault {status}", "errors": []}}
        self._send(status, error)

    def _send(self, status: int, content) -> None:
        body = b"" if status == 304 else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _place(self) -> tuple[str, str]:
        """Return the bucket and the object of a request."""
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        bucket, _, name = path.partition("/b/")[2].partition("/o")
        return unquote(bucket), query.get("name", [unquote(name.removeprefix("/"))])[0]

    def _precondition(self) -> int:
        """Return the status of a request that names a wrong generation, or 0."""
        query = parse_qs(urlsplit(self.path).query)
        bucket, name = self._place()
        about = self.service.storage.objects.get(bucket, {}).get(name, {"generation": "0"})
        self.generation = about["generation"]
        if query.get("generation", [self.generation]) != [self.generation]:
            return 404
        if query.get("ifGenerationMatch", [self.generation]) != [self.generation]:
            return 412
        exists = self.generation != "0"
        return 304 if exists and query.get("ifGenerationNotMatch") == [self.generation] else 0

    def end_headers(self) -> None:
        if self.command == "GET" and "alt=media" in self.path:
            self.send_header("x-goog-generation", self.generation)
        super().end_headers()

    def _move(self) -> None:
        bucket, name = self._place()
        name, _, target = name.partition("/moveTo/o/")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if name not in self.service.storage.objects.get(bucket, {}):
            self._send(404, {"error": {"code": 404, "message": "Not Found"}})
            return
        about = {**self.service.storage.get_file_obj(bucket, name), "name": target}
        self.service.storage.create_file(bucket, target, self.service.read(bucket, name), about)
        self.service.remove(bucket, name)
        self._send(200, about)

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_DELETE(self):
        self._answer("DELETE")

    def do_PUT(self):
        self._answer("PUT")

    def do_PATCH(self):
        self._answer("PATCH")


if __name__ == "__main__":  # bucket.py PORT BUCKET
    Service(int(sys.argv[1])).create(sys.argv[2])
    threading.Event().wait()
