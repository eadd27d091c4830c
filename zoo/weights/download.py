"""Published weights, fetched once into a cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import importlib
import os
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import BinaryIO

from kernels.runtime.files import put_in_place
from zoo.arguments import need
from zoo.weights.published import file_of

TORCHVISION_URL = "https://download.pytorch.org/models/"
ATTEMPTS = 4
TIMEOUT = 60.0  # seconds without a byte until a connection counts as broken
PAUSE = 1.0  # seconds before the next attempt where a server is overloaded
OVERLOADED = (429, 500, 502, 503, 504)
PathLike = str | os.PathLike


class DownloadError(OSError):
    """The file could not be downloaded, or its checksum is wrong."""


def cache_dir(cache: PathLike | None = None) -> pathlib.Path:
    """Where weights are kept: `cache`, else $ZOO_CACHE, else jax-kernel-zoo under the user's cache folder."""
    if cache or os.environ.get("ZOO_CACHE"):
        return pathlib.Path(cache or os.environ["ZOO_CACHE"])
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "jax-kernel-zoo"


def fetch_torchvision(name: str, cache: PathLike | None = None, progress: bool | None = None) -> pathlib.Path:
    """The local file of torchvision's weights `name`; $ZOO_TORCHVISION_URL names a mirror of download.pytorch.org/models/.

    Raises:
      ValueError: torchvision publishes no such weights.
      DownloadError: see `fetch`.
    """
    file = file_of(name)
    base = os.environ.get("ZOO_TORCHVISION_URL", TORCHVISION_URL)
    path = cache_dir(cache) / "torchvision" / file
    return fetch(base.rstrip("/") + "/" + file, path, _sum_in_name(file) or "", progress)


def download(
    url: str, *, sha256: str | None = None, cache: PathLike | None = None, progress: bool | None = None
) -> pathlib.Path:
    """The local file of a URL. If it is in the cache folder, no connection is made.

    Args:
      sha256: of the file, or at least its first eight hex digits; not needed if the file's name ends in them, as in
        "resnet50-11ad3fa6.pth".
      cache: folder to keep it in; None for $ZOO_CACHE, or the user's cache folder.
      progress: whether to show a bar on standard error; None shows one only in a terminal.

    Raises:
      ValueError: not a URL, or no checksum.
      DownloadError: see `fetch`.
    """
    parts = urllib.parse.urlsplit(url)
    name = pathlib.PurePosixPath(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc or name in ("", ".", ".."):
        raise ValueError(f"source: {url!r} given, https://HOST/FILE is needed")
    expected = (sha256 or _sum_in_name(name) or "").lower()
    if not re.fullmatch(r"[0-9a-f]{8,64}", expected):
        given = f"{sha256!r} given" if sha256 else f"none given, and {name} does not end in one, as resnet50-11ad3fa6.pth does"
        raise ValueError(f"sha256: {given}; 8 to 64 hex digits are needed")
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    return fetch(url, cache_dir(cache) / "urls" / folder / name, expected, progress)


def _sum_in_name(file: str) -> str | None:
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    return found[1] if found else None


def fetch(url: str, path: pathlib.Path, sha256_prefix: str, progress: bool | None = None) -> pathlib.Path:
    """Download `url` to `path` unless it is there; what a broken connection left is continued, here or in a later call.

    The file appears at `path` only when it is whole and its sha256 begins with `sha256_prefix`. Processes that want the same
    file wait for one another.

    Raises:
      DownloadError: the server cannot be reached or keeps breaking off, the file is not the one published, or the folder
        cannot be written.
    """
    if path.exists():
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _locked(part)
    except OSError as error:
        message = f"cache: {path.parent} cannot be written ({error.strerror}); $ZOO_CACHE names another folder"
        raise DownloadError(message) from None
    with stream, _bar(path.name, progress) as show:
        if path.exists():  # another process was faster
            part.unlink(missing_ok=True)
            return path
        try:
            _fetch_all(url, stream, show)
        except DownloadError:
            if not part.stat().st_size:
                part.unlink()
            raise
        with part.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        if not digest.startswith(sha256_prefix):
            part.unlink()
            raise DownloadError(
                f"source: {url}: sha256 {digest[:16]}... does not begin with {sha256_prefix[:16]}; nothing was kept"
            )
        put_in_place(part, path)
    return path


def _locked(part: pathlib.Path) -> BinaryIO:
    """The partial file, open for appending and this process's alone until it is closed."""
    while True:
        stream = part.open("ab")
        fcntl.flock(stream, fcntl.LOCK_EX)
        # Who had it before may have deleted or renamed it.
        if part.exists() and os.path.samestat(part.stat(), os.fstat(stream.fileno())):
            return stream
        stream.close()


def _fetch_all(url: str, stream: BinaryIO, show: Callable[[int, int | None], None]) -> None:
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        try:
            if _continue(url, stream, show):
                return
        except urllib.error.HTTPError as error:
            if error.code not in OVERLOADED or attempt == ATTEMPTS - 1:
                raise DownloadError(f"source: {url}: the server answers {error.code} {error.reason}") from None
            time.sleep(PAUSE * (attempt + 1))
        except (OSError, http.client.HTTPException) as error:
            failure = error
    done = os.fstat(stream.fileno()).st_size
    reason = getattr(failure, "reason", None) or failure or "connection closed"
    if not done:
        raise DownloadError(f"source: {url}: not a byte could be fetched ({reason})")
    raise DownloadError(f"source: {url}: broken off after {done} bytes ({reason}); the next call continues there")


def _continue(url: str, stream: BinaryIO, show: Callable[[int, int | None], None]) -> bool:
    """Append what is missing; whether the file is whole now."""
    start = os.fstat(stream.fileno()).st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if start and response.status != 206:  # the server does not continue, so start again
                stream.truncate(0)
                start = 0
            length = response.headers.get("Content-Length")
            total, done = None if length is None else start + int(length), start
            while block := response.read1(2**20):
                stream.write(block)
                done += len(block)
                show(done, total)
            return total is None or done == total
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is missing, or what is there is too long: the checksum will tell
            return True
        raise
    finally:
        stream.flush()


@contextlib.contextmanager
def _bar(name: str, progress: bool | None) -> Iterator[Callable[[int, int | None], None]]:
    """A function to call with the bytes that are there and those there will be, drawn as a bar on standard error."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda done, total: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.DownloadColumn(), rich.TransferSpeedColumn())
    with rich.Progress(*columns, rich.TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fetch_hub(spec: str, cache: PathLike | None = None) -> pathlib.Path:
    """The local file of "owner/repo[/file][@revision]" on the Hugging Face hub, fetched by its own client.

    It is kept in `cache`, or in the client's own folder.

    Without a file: model.safetensors, or pytorch_model.bin where there is none. $HF_ENDPOINT names another hub.

    Raises:
      ValueError: `spec` is not of that form.
      DownloadError: the hub cannot be reached, or has no such file.
    """
    found = re.fullmatch(r"([^/@]+/[^/@]+)(?:/([^@]+))?(?:@(.+))?", spec)
    if not found:
        raise ValueError(f"source: 'hf://{spec}' given, hf://owner/repo[/file][@revision] is needed")
    try:
        huggingface_hub = need("huggingface_hub", "hub", "source: hf://")
    except ModuleNotFoundError as error:
        raise DownloadError(str(error)) from error
    missing_entry = importlib.import_module("huggingface_hub.errors").EntryNotFoundError
    repo, file, revision = found.groups()
    files = [file] if file else ["model.safetensors", "pytorch_model.bin"]
    for name in files:
        try:
            return pathlib.Path(
                huggingface_hub.hf_hub_download(
                    repo,
                    name,
                    revision=revision,
                    cache_dir=None if cache is None else os.fspath(cache),
                    endpoint=os.environ.get("HF_ENDPOINT"),
                    library_name="jax-kernel-zoo",
                )
            )
        except missing_entry as error:
            missing = error
        except Exception as error:  # the client's errors share no base class but this
            raise DownloadError(f"source: hf://{spec}: {' '.join(str(error).split())}") from error
    raise DownloadError(f"source: hf://{spec}: the repository has no {' and no '.join(files)}") from missing
