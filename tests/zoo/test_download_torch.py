"""Downloads from a server on this machine: whole, broken off, wrong, absent."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import pathlib
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import zoo
from zoo.weights import DownloadError, torch_arrays
from zoo.weights.download import fetch, fetch_torchvision
from zoo.weights.published import file_of, published


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; after `break_after` bytes it closes the connection, as often as `breaks` says."""

    files: dict[str, bytes]
    breaks = 0
    break_after = 0
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = {}, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self, send_body: bool = True) -> None:
        content = self.server.files.get(self.path.partition("?")[0])
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        digest = hashlib.sha256(content).hexdigest()
        for name, value in (("ETag", f'"{digest}"'), ("X-Repo-Commit", "c" * 40), ("Content-Length", len(content) - start)):
            self.send_header(name, str(value))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not send_body:
            return
        if self.server.breaks:
            self.server.breaks -= 1
            self.wfile.write(content[start : start + self.server.break_after])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def do_HEAD(self) -> None:
        self.do_GET(send_body=False)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


CONTENT = bytes(range(256)) * 1000
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


def test_downloaded_once(server: Server, tmp_path: pathlib.Path) -> None:
    server.files["/a.pth"] = CONTENT
    for _ in range(2):
        assert fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX).read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_off_and_continued(server: Server, tmp_path: pathlib.Path, ranges: bool) -> None:
    server.files["/a.pth"], server.breaks, server.break_after, server.ranges = CONTENT, 2, 100_000, ranges
    assert fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", f"bytes={200_000 if ranges else 100_000}-"]


def test_continued_by_the_next_call(server: Server, tmp_path: pathlib.Path) -> None:
    server.files["/a.pth"], server.breaks, server.break_after = CONTENT, 4, 10_000
    with pytest.raises(DownloadError, match="broken off after 40000 bytes"):
        fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX)
    assert not (tmp_path / "a.pth").exists()
    assert fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=40000-"


def test_wrong_content_is_not_kept(server: Server, tmp_path: pathlib.Path) -> None:
    server.files["/a.pth"] = b"something else"
    with pytest.raises(DownloadError, match=f"does not begin with {PREFIX}; nothing was kept"):
        fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX)
    with pytest.raises(DownloadError, match="the server answers 404"):
        fetch(server.url + "/b.pth", tmp_path / "b.pth", PREFIX)
    assert not (tmp_path / "a.pth").exists()


def test_torchvision_names(server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_of("resnet50") == "resnet50-11ad3fa6.pth"
    assert file_of("resnet50.IMAGENET1K_V1") == file_of("resnet50-0676ba61") == "resnet50-0676ba61.pth"
    assert published("googlenet") == ("googlenet", "googlenet.IMAGENET1K_V1")
    for wrong in ("resnet51", "alexnet.IMAGENET1K_V2", "resnet50.V3"):
        with pytest.raises(ValueError, match=f"no weights '{wrong}'"):
            file_of(wrong)
    # A file of torchvision's name with other bytes: the checksum in the name is what is held to.
    server.files["/models/alexnet-owt-7be5be79.pth"] = CONTENT
    monkeypatch.setenv("ZOO_TORCHVISION_URL", server.url + "/models/")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match="does not begin with 7be5be79"):
        fetch_torchvision("alexnet")
    (tmp_path / "torchvision").mkdir(exist_ok=True)
    (tmp_path / "torchvision" / "alexnet-owt-7be5be79.pth").write_bytes(b"")
    assert fetch_torchvision("alexnet").name == "alexnet-owt-7be5be79.pth"


def test_a_published_file_from_name_to_model(server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream = zoo.create_model("lenet5", rngs=3), io.BytesIO()
    torch.save(zoo.to_torch_state_dict(source), stream)
    name = f"lenet5-{hashlib.sha256(stream.getvalue()).hexdigest()[:8]}"
    monkeypatch.setitem(zoo.weights.published._FILES, "lenet5", (name, None))
    server.files[f"/{name}.pth"] = stream.getvalue()
    monkeypatch.setenv("ZOO_TORCHVISION_URL", server.url)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    model = zoo.create_model("lenet5", weights="torchvision://lenet5")
    np.testing.assert_array_equal(torch_arrays(model)["fc3.weight"], torch_arrays(source)["fc3.weight"])


def test_hub(server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zoo.create_model("lenet5", rngs=3)
    zoo.save_weights(source, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    server.files["/someone/lenet/resolve/main/model.safetensors"] = content
    server.files["/someone/lenet/resolve/v2/other/m.safetensors"] = content
    server.files["/api/models/someone/lenet"] = json.dumps({"id": "someone/lenet", "sha": "c" * 40}).encode()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("someone/lenet", "someone/lenet/other/m.safetensors@v2"):
        model = zoo.create_model("lenet5", weights=f"hf://{name}")
        np.testing.assert_array_equal(torch_arrays(model)["fc3.weight"], torch_arrays(source)["fc3.weight"])
    with pytest.raises(DownloadError, match=r"no model.safetensors and no pytorch_model.bin"):
        zoo.create_model("lenet5", weights="hf://someone/nothing")
    with pytest.raises(ValueError, match="hf://owner/repo"):
        zoo.create_model("lenet5", weights="hf://lenet")
