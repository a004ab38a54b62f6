"""A hub of models on the loopback that speaks the routes which `huggingface_hub` needs to download and to commit.

Routes and headers are those of the public documentation (https://huggingface.co/docs/hub/api) and of the client itself.
Every file is "regular", so that it travels inside the commit; large files, which the real hub stores elsewhere (LFS,
Xet), are left to the client.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

import yaml
from tests.services.loopback import Loopback, QuietHandler

LICENCES = {
    *("apache-2.0", "mit", "openrail", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "cc"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0"),
    *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "etalab-2.0", "agpl-3.0", "gpl", "gpl-2.0"),
    *("gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0", "odc-by", "odbl", "pddl", "unlicense", "zlib"),
    *("unknown", "other"),
}
"""Of the list at https://huggingface.co/docs/hub/repositories-licenses those near to what is used here."""


class Hub(Loopback):
    """Repositories by "ORG/REPO", each a list of commits, which are mappings of names to bytes."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.fail: dict[str, int] = {}
        """Status to answer with, by name of a file."""
        outer = self

        class Handler(QuietHandler):
            def do_HEAD(self) -> None:
                outer.resolve(self, body=False)

            def do_GET(self) -> None:
                outer.resolve(self, body=True)

            def do_POST(self) -> None:
                outer.post(self)

        super().__init__(Handler)

    def resolve(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        """GET or HEAD /ORG/REPO/resolve/REVISION/NAME."""
        self._seen(handler)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", handler.path.partition("?")[0])
        repository = None if found is None else self.repositories.get(found[1])
        if found is None or repository is None:
            return self._answer(handler, 404, b"", {"X-Error-Code": "RepoNotFound"})
        commits = {_oid(found[1], n): n for n in range(len(repository))} | {"main": len(repository) - 1}
        if found[2] not in commits:
            return self._answer(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = commits[found[2]]
        headers = {"X-Repo-Commit": _oid(found[1], commit)}
        data = repository[commit].get(found[3]) if commit >= 0 else None
        if data is None:
            return self._answer(handler, 404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        if found[3] in self.fail:
            return self._answer(handler, self.fail[found[3]], b"")
        headers["ETag"] = f'"{_blob(data)}"'
        return self._answer(handler, 200, data, headers, body=body)

    def post(self, handler: BaseHTTPRequestHandler) -> None:
        """Creating a repository, asking how files travel, and committing them."""
        self._seen(handler)
        sent = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        path = handler.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked['organization']}/{asked['name']}"
            status = 409 if name in self.repositories else 200
            self.repositories.setdefault(name, [])
            return self._json(handler, {"url": f"{self.url}/{name}"}, status=status)
        if path == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(sent)["content"].split("---")[1])
            known = head.get("license") in LICENCES and (head["license"] != "other" or "license_name" in head)
            errors = [] if known else [{"message": f'"license" must be one of the list, got {head.get("license")}'}]
            return self._json(handler, {"errors": errors, "warnings": []}, status=400 if errors else 200)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        if found is None or found[1] not in self.repositories:
            return self._answer(handler, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if found[2] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(sent)["files"]
            ]
            return self._json(handler, {"files": files})
        return self._json(handler, self._commit(found[1], sent))

    def _commit(self, name: str, sent: bytes) -> dict[str, Any]:
        repository = self.repositories[name]
        files = dict(repository[-1]) if repository else {}
        for line in map(json.loads, sent.splitlines()):
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        repository.append(files)
        oid = _oid(name, len(repository) - 1)
        return {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid}

    def revision(self, name: str, commit: int) -> str:
        """Of a commit, counted from 0."""
        return _oid(name, commit)

    def _seen(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{handler.command} {handler.path.partition('?')[0]}")
        self.tokens.add(handler.headers.get("Authorization"))

    def _json(self, handler: BaseHTTPRequestHandler, value: object, *, status: int = 200) -> None:
        self._answer(handler, status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        *,
        body: bool = True,
    ) -> None:
        handler.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if body and handler.command != "HEAD":
            handler.wfile.write(data)


def _oid(name: str, commit: int) -> str:
    return hashlib.sha1(f"{name} {commit}".encode()).hexdigest()


def _blob(data: bytes) -> str:
    """The hash by which git knows a file."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
