"""Published weights, fetched once into a cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.request

from zoo.weights.published import file_of

TORCHVISION_URL = "https://download.pytorch.org/models/"
ATTEMPTS = 4


class DownloadError(OSError):
    """The file could not be fetched, or is not the one it should be."""


def cache_dir() -> pathlib.Path:
    """Where weights are kept: $ZOO_CACHE, else jax-kernel-zoo under the user's cache folder."""
    if os.environ.get("ZOO_CACHE"):
        return pathlib.Path(os.environ["ZOO_CACHE"])
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "jax-kernel-zoo"


def fetch_torchvision(name: str) -> pathlib.Path:
    """The local file of torchvision's weights `name`; $ZOO_TORCHVISION_URL names a mirror of download.pytorch.org/models/.

    Raises:
      ValueError: torchvision publishes no such weights.
      DownloadError: see `fetch`.
    """
    file = file_of(name)
    prefix = re.fullmatch(r".*-([0-9a-f]{8})\.pth", file)
    assert prefix is not None
    base = os.environ.get("ZOO_TORCHVISION_URL", TORCHVISION_URL)
    return fetch(base.rstrip("/") + "/" + file, cache_dir() / "torchvision" / file, prefix[1])


def fetch(url: str, path: pathlib.Path, sha256_prefix: str) -> pathlib.Path:
    """Download `url` to `path` unless it is there; what a broken connection left is continued, here or in a later call.

    The file appears at `path` only when it is whole and its sha256 begins with `sha256_prefix`. Processes that want the same
    file wait for one another.

    Raises:
      DownloadError: the server cannot be reached or keeps breaking off, or the file is not the one published.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if path.exists():  # another process was faster
            part.unlink(missing_ok=True)
            return path
        failure: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                if _continue(url, stream):
                    break
            except urllib.error.HTTPError as error:
                raise DownloadError(f"source: {url}: the server answers {error.code} {error.reason}") from None
            except (OSError, http.client.HTTPException) as error:
                failure = error
        else:
            done = part.stat().st_size
            raise DownloadError(
                f"source: {url}: broken off after {done} bytes ({failure or 'connection closed'}); "
                "the next call continues there"
            )
        with part.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        if not digest.startswith(sha256_prefix):
            part.unlink()
            raise DownloadError(f"source: {url}: sha256 {digest[:16]}... does not begin with {sha256_prefix}; nothing was kept")
        os.replace(part, path)
    return path


def _continue(url: str, stream) -> bool:
    """Append what is missing; whether the file is whole now."""
    start = os.fstat(stream.fileno()).st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            if start and response.status != 206:  # the server does not continue, so start again
                stream.truncate(0)
                start = 0
            length = response.headers.get("Content-Length")
            while block := response.read(2**20):
                stream.write(block)
            stream.flush()
            return length is None or os.fstat(stream.fileno()).st_size == start + int(length)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is missing, or what is there is too long: the checksum will tell
            return True
        raise
    finally:
        stream.flush()


def fetch_hub(spec: str) -> pathlib.Path:
    """The local file of "owner/repo[/file][@revision]" on the Hugging Face hub, fetched by its own client into its own cache.

    Without a file: model.safetensors, or pytorch_model.bin where there is none. $HF_ENDPOINT names another hub.

    Raises:
      ValueError: `spec` is not of that form.
      DownloadError: the hub cannot be reached, or has no such file.
    """
    found = re.fullmatch(r"([^/@]+/[^/@]+)(?:/([^@]+))?(?:@(.+))?", spec)
    if not found:
        raise ValueError(f"source: 'hf://{spec}' given, hf://owner/repo[/file][@revision] is needed")
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise DownloadError("source: hf:// needs the package huggingface-hub, which is not installed") from error
    repo, file, revision = found.groups()
    files = [file] if file else ["model.safetensors", "pytorch_model.bin"]
    for name in files:
        try:
            return pathlib.Path(
                huggingface_hub.hf_hub_download(
                    repo, name, revision=revision, endpoint=os.environ.get("HF_ENDPOINT"), library_name="jax-kernel-zoo"
                )
            )
        except EntryNotFoundError as error:
            missing = error
        except Exception as error:  # the client's errors share no base class but this
            raise DownloadError(f"source: hf://{spec}: {' '.join(str(error).split())}") from error
    raise DownloadError(f"source: hf://{spec}: the repository has no {' and no '.join(files)}") from missing
