"""A bucket of Google Cloud Storage on this machine, for the three clients that a run uses.

TensorFlow's file system knows no other server than Google's, and reaches this one as a proxy with a
certificate that it is told to trust; tensorstore and google-cloud-storage are told its address.
Objects, generations, listings, uploads, ranges and copies are those of the JSON API v1.
"""

import contextlib
import datetime
import http.server
import itertools
import json
import re
import ssl
import threading
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = ("www.googleapis.com", "storage.googleapis.com", "oauth2.googleapis.com")


class Objects(dict):
    """{"bucket/name": bytes}; `sent` has the name and the size of each upload."""

    def __init__(self):
        super().__init__()
        self.sent = []


@contextlib.contextmanager
def serve(folder):
    """Yields (objects, environment): {"bucket/name": bytes}, and what tells the clients of them."""
    certificate, tls = _certificate(folder)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.tls, server.objects = tls, Objects()
    server.generations, server.uploads = {}, {}
    server.next_generation, server.lock = itertools.count(1), threading.Lock()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    credentials = folder / "credentials.json"
    credentials.write_text(
        json.dumps(
            {"type": "authorized_user"}
            | dict.fromkeys(("client_id", "client_secret", "refresh_token"), "none")
        )
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield (
            server.objects,
            {
                "HTTPS_PROXY": address,
                "CURL_CA_BUNDLE": str(certificate),
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
                "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
                "TENSORSTORE_GCS_HTTP_URL": address,
                "STORAGE_EMULATOR_HOST": address,
                "NO_GCE_CHECK": "true",
                "no_proxy": "127.0.0.1,localhost",
            },
        )
    finally:
        server.shutdown()
        server.server_close()


def _certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path, key_path = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return path, context


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.connection = self.request = self.server.tls.wrap_socket(
            self.connection, server_side=True
        )
        self.setup()

    def do_GET(self):
        self._answer()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_GET

    def _answer(self):
        body = self._body()
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        with self.server.lock:
            status, answer, headers = self._route(url.path, query, body)
            if "/upload/" in url.path and body and status == 200:
                self.server.objects.sent.append((query.get("name"), len(body)))
        if isinstance(answer, dict):
            answer = json.dumps(answer).encode()
            headers = {"Content-Type": "application/json"} | headers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _route(self, path, query, body):
        path = re.sub("^/(upload/|download/)?storage/v1", r"/\1v1", path)
        if path == "/token":
            return 200, {"access_token": "none", "expires_in": 3600, "token_type": "Bearer"}, {}
        if match := re.fullmatch("/upload/v1/b/([^/]+)/o", path):
            return self._upload(match[1], query, body)
        if match := re.fullmatch("/v1/b/([^/]+)", path):
            return 200, {"kind": "storage#bucket", "name": match[1], "location": "US"}, {}
        if match := re.fullmatch("/v1/b/([^/]+)/o/?", path):
            return 200, self._list(match[1], query), {}
        if match := re.fullmatch("/v1/b/([^/]+)/o/(.+)/rewriteTo/b/([^/]+)/o/(.+)", path):
            bucket, source, other, target = map(urllib.parse.unquote, match.groups())
            if f"{bucket}/{source}" not in self.server.objects:
                return 404, {"error": {"code": 404}}, {}
            resource = self._put(f"{other}/{target}", self.server.objects[f"{bucket}/{source}"])
            return 200, {"done": True, "resource": resource}, {}
        if match := re.fullmatch("/v1/b/([^/]+)/o/(.+)/compose", path):
            bucket, target = map(urllib.parse.unquote, match.groups())
            return self._compose(bucket, f"{bucket}/{target}", query, json.loads(body))
        if match := re.fullmatch("/(?:download/)?v1/b/([^/]+)/o/(.+)", path):
            key = "/".join(map(urllib.parse.unquote, match.groups()))
            return self._object(key, query, media=query.get("alt") == "media")
        return self._object(urllib.parse.unquote(path[1:]), query, media=True)

    def _upload(self, bucket, query, body):
        if query.get("upload_id") in self.server.uploads:
            key = self.server.uploads.pop(query["upload_id"])
            return 200, self._put(key, body), {}
        key = f"{bucket}/{query['name']}"
        if not self._as_expected(key, query):
            return 412, {"error": {"code": 412}}, {}
        if query["uploadType"] == "resumable":
            number = str(next(self.server.next_generation))
            self.server.uploads[number] = key
            host = self.headers["Host"].split(":")[0]
            scheme = "https" if host in HOSTS else "http"
            location = f"{scheme}://{self.headers['Host']}{self.path}&upload_id={number}"
            return 200, b"", {"Location": location}
        return 200, self._put(key, body), {}

    def _compose(self, bucket, key, query, request):
        if not self._as_expected(key, query):
            return 412, {"error": {"code": 412}}, {}
        sources = [f"{bucket}/{each['name']}" for each in request["sourceObjects"]]
        if not set(sources) <= self.server.objects.keys() or len(sources) > 32:
            return 404, {"error": {"code": 404}}, {}
        return 200, self._put(key, b"".join(map(self.server.objects.get, sources))), {}

    def _as_expected(self, key, query):
        present = self._generation(key) if key in self.server.objects else 0
        return int(query.get("ifGenerationMatch", present)) == present

    def _generation(self, key):
        # Tests put and delete objects too.
        return self.server.generations.setdefault(key, next(self.server.next_generation))

    def _object(self, key, query, media):
        objects = self.server.objects
        if not self._as_expected(key, query):
            return 412, {"error": {"code": 412}}, {}
        if key not in objects:
            return 404, {"error": {"code": 404, "message": f"no object {key}"}}, {}
        if self.command == "DELETE":
            del objects[key], self.server.generations[key]
            return 204, b"", {}
        generation = str(self._generation(key))
        if query.get("ifGenerationNotMatch") == generation:
            return 304, b"", {}
        if not media:
            return 200, self._resource(key), {}
        headers, data = {"x-goog-generation": generation}, objects[key]
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
            if first >= len(data):
                return 416, b"", headers
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return 206, data[first : last + 1], headers
        return 200, data, headers

    def _put(self, key, data):
        self.server.objects[key] = data
        self.server.generations[key] = next(self.server.next_generation)
        return self._resource(key)

    def _resource(self, key):
        bucket, _, name = key.partition("/")
        generation = str(self._generation(key))
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": bucket,
            "size": str(len(self.server.objects[key])),
            "generation": generation,
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }

    def _list(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset")
        items, prefixes = [], {}
        for key in sorted(self.server.objects):
            name = key.removeprefix(f"{bucket}/")
            if name == key or not name.startswith(prefix) or name < start:
                continue
            if end and name >= end:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes[prefix + rest.split(delimiter)[0] + delimiter] = None
            else:
                items.append(self._resource(key))
        count = int(query.get("maxResults") or 10**6)
        return {"kind": "storage#objects", "items": items[:count], "prefixes": list(prefixes)}
