"""A saved model to the Hugging Face hub. `load_model("hf://owner/name")` brings it back."""

from __future__ import annotations

import os
import pathlib
import re

from zoo.arguments import need
from zoo.model_card import FILE, model_card, moved
from zoo.weights.runs import MODEL
from zoo.weights.sources import read_info


class UploadError(OSError):
    """The hub did not take the model."""


def push_to_hub(folder: str | os.PathLike, repo: str, *, token: str | None = None, private: bool = False) -> str:
    """Upload model.safetensors and README.md of a folder, and nothing else that lies there, as one commit.

    Args:
      folder: of `zoo.save_model`, or of a finished training run.
      repo: "owner/name" of the repository, which is created where it is not there. $HF_ENDPOINT names another hub.
      token: of an account that may write there; None for that of `hf auth login`, or $HF_TOKEN.
      private: whether a repository that is created is hidden from others.

    Returns:
      What `zoo.load_model` takes, "hf://owner/name".

    Raises:
      ValueError: the folder holds no model, or `repo` is no such name.
      ModuleNotFoundError: huggingface_hub is not installed; the message names the extra.
      UploadError: the hub cannot be reached, or refuses.
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
