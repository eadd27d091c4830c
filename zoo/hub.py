"""Uploads a saved model to the Hugging Face hub; `load_model("hf://owner/name")` loads it again."""

from __future__ import annotations

import os
import pathlib
import re

from zoo.arguments import need
from zoo.model_card import FILE, model_card, moved
from zoo.weights.runs import MODEL
from zoo.weights.sources import read_info


class UploadError(OSError):
    """The hub did not accept the model."""


def push_to_hub(folder: str | os.PathLike, repo: str, *, token: str | None = None, private: bool = False) -> str:
    """Upload model.safetensors and README.md of a folder, and no other file, as one commit.

    Args:
      folder: one that `zoo.save_model` or a finished training run wrote.
      repo: "owner/name" of the repository, which is created if it does not exist. $HF_ENDPOINT names another hub.
      token: access token with write permission; None for that of `hf auth login`, or $HF_TOKEN.
      private: whether a newly created repository is private.

    Returns:
      The source for `zoo.load_model`, "hf://owner/name".

    Raises:
      ValueError: the folder holds no model, or `repo` is not of that form.
      ModuleNotFoundError: huggingface_hub is not installed; the message names the extra.
      UploadError: the hub cannot be reached, or refuses the upload.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"repo: {repo!r} given, 'owner/name' is needed")
    path = pathlib.Path(folder) / MODEL
    if not path.is_file():
        raise ValueError(f"folder: {folder} given, which holds no {MODEL}; zoo.save_model and finished training runs leave one")
    info = read_info(path, str(path))
    if not info.model:
        raise ValueError(f"folder: {path} does not say what model it is of; zoo.save_model writes one that does")
    card = path.with_name(FILE)
    place = f"hf://{repo}"
    text = moved(card.read_text("utf-8"), place) if card.is_file() else model_card(info, place)
    huggingface_hub = need("huggingface_hub", "hub", "repo: to talk to the hub")
    api = huggingface_hub.HfApi(os.environ.get("HF_ENDPOINT"), token, library_name="jax-kernel-zoo")
    add = huggingface_hub.CommitOperationAdd
    files = [add(MODEL, os.fspath(path)), add(FILE, text.encode("utf-8", "replace"))]
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.create_commit(repo, files, commit_message=f"{info.model} by zoo.push_to_hub")
    except Exception as error:  # the client's errors share no base class but this
        reason = f"{error} {error.__cause__ or ''}"  # what the client wraps an error of the server in says nothing of it
        raise UploadError(f"repo: {place}: {' '.join(reason.split())}") from error
    return place
