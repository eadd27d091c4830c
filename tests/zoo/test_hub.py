"""To the hub and back: a server on this machine that keeps what is committed and gives it out again."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import pathlib
import re
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import zoo
from zoo.hub import UploadError
from zoo.weights import DownloadError, torch_arrays

# The hub's client hands files to its HTTP library in a way that this library would rather not have.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

COMMIT = "c" * 40


class Hub(http.server.ThreadingHTTPServer):
    """`files` by repository and path; large ones come by LFS, in a request of their own.

    `refusal`: a code that every request is answered with.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.created: list[dict] = []
        self.tokens: set[str | None] = set()
        self.commits: list[list[dict]] = []
        self.refusal = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def answer(self, content: bytes | dict | None, code: int = 200, **headers: str) -> None:
        body = json.dumps(content).encode() if isinstance(content, dict) else content or b""
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        hub = self.server
        if hub.refusal:
            self.answer({"error": "not\nallowed"}, hub.refusal)
        elif found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(main|v1)/(.+)", path):
            content = hub.files.get(f"{found[1]}/{found[3]}")
            if content is None:
                self.answer(None, 404, X_Error_Code="EntryNotFound")
            else:
                self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"')
        elif path == "/api/repos/create":
            hub.created.append(json.loads(body))
            hub.tokens.add(self.headers.get("Authorization"))
            self.answer({"url": f"{hub.url}/someone/{hub.created[-1]['name']}"})
        elif path.endswith("/preupload/main"):
            modes = [(f["path"], "lfs" if f["path"].endswith(".safetensors") else "regular") for f in json.loads(body)["files"]]
            self.answer({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]})
        elif path.endswith("/info/lfs/objects/batch"):
            upload = lambda o: {"upload": {"href": f"{hub.url}/blobs/{o['oid']}"}}
            objects = [{"oid": o["oid"], "size": o["size"], "actions": upload(o)} for o in json.loads(body)["objects"]]
            self.answer({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")
        elif path.startswith("/blobs/"):
            hub.blobs[path.removeprefix("/blobs/")] = body
            self.answer(None)
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            lines = [json.loads(line) for line in body.splitlines()]
            hub.commits.append(lines)
            for line in lines:
                value = line["value"]
                if line["key"] == "lfsFile":
                    hub.files[f"{found[1]}/{value['path']}"] = hub.blobs[value["oid"]]
                elif line["key"] == "file":
                    hub.files[f"{found[1]}/{value['path']}"] = base64.b64decode(value["content"])
            self.answer({"commitUrl": f"{hub.url}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"id": "someone/lenet", "sha": COMMIT})

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815 (http.server's names)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Hub]:
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A saved model, among other things that are nobody's business."""
    folder = tmp_path_factory.mktemp("run")
    model = zoo.create_model("gan_mlp", num_classes=2, hidden=4, latent_size=3, image_size=4, rngs=2)
    zoo.save_model(model, folder, classes=["a", "b"], data="two letters", figures={"recall": 0.5})
    (folder / "secret.txt").write_text("secret")
    return folder


def test_there_and_back(hub: Hub, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert zoo.push_to_hub(folder, "someone/small-gan", token="hf_x", private=True) == "hf://someone/small-gan"
    assert set(hub.files) == {"someone/small-gan/model.safetensors", "someone/small-gan/README.md"}
    assert len(hub.commits) == 1
    assert hub.created[0]["name"] == "small-gan"
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert hub.tokens == {"Bearer hf_x"}
    assert b'model = zoo.load_model("hf://someone/small-gan")' in hub.files["someone/small-gan/README.md"]
    for source in ("hf://someone/small-gan", "hf://someone/small-gan@v1", "hf://someone/small-gan/model.safetensors"):
        model = zoo.load_model(source, cache=tmp_path / "cache")
        info = zoo.weights_info(model)
        assert (info.source, info.classes, info.figures) == (source, ("a", "b"), (("recall", 0.5),))
        np.testing.assert_array_equal(
            torch_arrays(model)["generator.fc1.weight"], torch_arrays(zoo.load_model(folder))["generator.fc1.weight"]
        )


def test_a_card_of_ones_own(hub: Hub, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    zoo.push_to_hub(tmp_path, "someone/bare")  # a card is made where there is none
    assert b"# gan_mlp, trained on two letters" in hub.files["someone/bare/README.md"]
    (tmp_path / "README.md").write_text('Mine: zoo.load_model("path/to/this/folder")\n')
    zoo.push_to_hub(str(tmp_path), "someone/mine")
    assert hub.files["someone/mine/README.md"] == b'Mine: zoo.load_model("hf://someone/mine")\n'
    assert (tmp_path / "README.md").read_text() == 'Mine: zoo.load_model("path/to/this/folder")\n'


def test_refused_and_absent(hub: Hub, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    hub.refusal = 403
    with pytest.raises(UploadError, match=r"^repo: hf://someone/gan: .*403[^\n]*$"):
        zoo.push_to_hub(folder, "someone/gan", token="hf_x")
    hub.refusal = 0
    with pytest.raises(DownloadError, match=r"^source: hf://someone/none/model.safetensors: the repository has no model.safe"):
        zoo.load_model("hf://someone/none", cache=tmp_path)
    with pytest.raises(ValueError, match="hf://owner/repo"):
        zoo.load_model("hf://none")


def test_before_any_connection(folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for repo in ("gan", "a/b/c", "a/b@v1", ""):
        with pytest.raises(ValueError, match=f"^repo: '{repo}' given, 'owner/name' is needed"):
            zoo.push_to_hub(folder, repo)
    with pytest.raises(ValueError, match=r"^folder: .* given, which holds no model.safetensors"):
        zoo.push_to_hub(tmp_path, "a/b")
    zoo.save_weights(zoo.create_model("lenet5"), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^folder: .*model.safetensors does not say what model it is of"):
        zoo.push_to_hub(tmp_path, "a/b")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(ModuleNotFoundError, match=r'^repo: .*pip install "jax-kernel-zoo\[hub\]"$'):
        zoo.push_to_hub(folder, "a/b")
    with pytest.raises(DownloadError, match=r'pip install "jax-kernel-zoo\[hub\]"$'):
        zoo.load_model("hf://a/b")
