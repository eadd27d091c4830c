"""Downloads from a server on this machine: whole, broken off, wrong, absent, slow, overloaded, moved."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import pathlib
import sys
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
    """Serves `files`; after `break_after` bytes it closes the connection, as often as `breaks` says.

    A path in `moved` is answered with its other address, and the first requests with the codes in `refusals`. `slow` is the
    number of pieces that a file comes in, with a moment between; at the half the next file stops for ever if `stalls`.
    """

    files: dict[str, bytes]
    breaks = 0
    break_after = 0
    ranges = True
    slow = 1
    stalls = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.moved, self.refusals = {}, [], {}, []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self, send_body: bool = True) -> None:
        content = self.server.files.get(self.path.partition("?")[0])
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        if self.server.refusals:
            self.send_error(self.server.refusals.pop())
            return
        if self.path in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
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
        size = -(-(len(content) - start) // self.server.slow)
        stalls, self.server.stalls = self.server.stalls, False
        for number, first in enumerate(range(start, len(content), size)):
            self.wfile.write(content[first : first + size])
            self.wfile.flush()
            if self.server.slow > 1:
                self.server.released.wait(0.02)
            if stalls and 2 * number > self.server.slow:
                self.server.released.wait()
                return

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
        running.released.set()
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


def test_redirected_and_continued_there(server: Server, tmp_path: pathlib.Path) -> None:
    server.files["/far/a.pth"], server.breaks, server.break_after = CONTENT, 1, 70_000
    server.moved = {"/a.pth": "/b.pth", "/b.pth": server.url + "/far/a.pth", "/round": "/round"}
    assert fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX).read_bytes() == CONTENT
    assert server.requests[-1] == ("/far/a.pth", "bytes=70000-")
    with pytest.raises(DownloadError, match="/round: the server answers 302"):
        fetch(server.url + "/round", tmp_path / "b.pth", PREFIX)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_slow_and_stalled(server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["zoo.weights.download"], "TIMEOUT", 0.3)
    server.files["/a.pth"], server.slow = CONTENT, 25  # slow: longer in all than the limit, never as long in one
    assert fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX).read_bytes() == CONTENT
    server.stalls = True
    assert fetch(server.url + "/a.pth", tmp_path / "b.pth", PREFIX).read_bytes() == CONTENT
    asked = [asked for _, asked in server.requests]
    assert asked[:2] == [None, None]
    assert len(asked) == 3
    assert 100_000 < int(asked[2].removeprefix("bytes=").removesuffix("-")) < len(CONTENT)


def test_overloaded(server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["zoo.weights.download"], "PAUSE", 0.0)
    server.files["/a.pth"], server.refusals = CONTENT, [503, 429]
    assert fetch(server.url + "/a.pth", tmp_path / "a.pth", PREFIX).read_bytes() == CONTENT
    server.refusals = [503] * 4
    with pytest.raises(DownloadError, match="the server answers 503"):
        fetch(server.url + "/a.pth", tmp_path / "b.pth", PREFIX)
    server.refusals = [403]
    with pytest.raises(DownloadError, match="the server answers 403"):
        fetch(server.url + "/a.pth", tmp_path / "b.pth", PREFIX)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_by_address_into_a_folder_and_from_there_offline(
    server: Server, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = zoo.create_model("lenet5", rngs=3)
    zoo.save_weights(source, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    total = hashlib.sha256(content).hexdigest()
    named = f"{server.url}/x/lenet5-{total[:8]}.safetensors?download=true"
    server.files[f"/x/lenet5-{total[:8]}.safetensors"] = server.files["/y/m.safetensors"] = content
    cache = tmp_path / "cache"
    report = zoo.load_weights(zoo.create_model("lenet5"), named, cache=cache, progress=True)
    assert len(report.loaded) == 10
    bar = capsys.readouterr().err
    assert "lenet5-" in bar
    assert "kB" in bar
    assert zoo.download(server.url + "/y/m.safetensors", sha256=total.upper(), cache=cache).read_bytes() == content
    assert not capsys.readouterr().err  # standard error is no terminal here
    with pytest.raises(ValueError, match=r"sha256: none given, and m\.safetensors does not end in one"):
        zoo.load_weights(source, server.url + "/y/m.safetensors", cache=cache)
    with pytest.raises(ValueError, match="sha256: 'abc' given; 8 to 64 hex digits"):
        zoo.download(server.url + "/y/m.safetensors", sha256="abc", cache=cache)
    with pytest.raises(DownloadError, match=r"sha256 .* does not begin with 0000000000000000; nothing was kept"):
        zoo.download(server.url + "/y/m.safetensors?other", sha256="0" * 64, cache=cache)
    for wrong in ("https:///a.pth", "ftp://host/a.pth", "https://host/", "https://host/a/.."):
        with pytest.raises(ValueError, match="https://HOST/FILE is needed"):
            zoo.download(wrong, sha256=total)
    before = len(server.requests)
    for url in (named, server.url + "/y/m.safetensors"):
        assert zoo.download(url, sha256=total, cache=cache).read_bytes() == content
    assert len(server.requests) == before


def test_nobody_there_and_nowhere_to_write(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DownloadError, match=r"not a byte could be fetched \(.*refused"):
        fetch("http://127.0.0.1:9/a.pth", tmp_path / "a.pth", PREFIX)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"^cache: .*file cannot be written \(.*\); \$ZOO_CACHE names another folder"):
        fetch("http://127.0.0.1:9/a.pth", tmp_path / "file" / "a.pth", PREFIX)


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
