"""One file per model and data set, each with a `RECIPE` and a docstring that gives command, time and expected result.

A file is named MODEL_DATA.py; the first one named in `DEFAULTS` for a model is what `experiments.train MODEL` runs.
"""

from __future__ import annotations

import importlib

import zoo
from experiments.errors import UserError, nearest
from experiments.recipes.recipe import Recipe

# model -> recipe files, the default one first
DEFAULTS: dict[str, tuple[str, ...]] = {
    "lenet5": ("lenet5_digits",),
    "lenet5_original": ("lenet5_original_digits",),
    "alexnet": ("alexnet_imagefolder",),
    "googlenet": ("googlenet_imagefolder",),
    "resnet18": ("resnet18_cifar10",),
    "resnet20_cifar": ("resnet20_cifar_digits", "resnet20_cifar_cifar10"),
    "resnet50": ("resnet50_imagefolder",),
    "vgg16": ("vgg16_imagefolder",),
    "bilstm_classifier": ("bilstm_classifier_digitrows",),
    "bilstm_tagger": ("bilstm_tagger_pytokens",),
    "dcgan": ("dcgan_digits",),
    "gan_mlp": ("gan_mlp_digits",),
    "gru_lm": ("gru_lm_pysource",),
    "lstm_classifier": ("lstm_classifier_digitrows",),
    "lstm_lm": ("lstm_lm_pysource",),
    "rnn_classifier": ("rnn_classifier_digitrows",),
    "rnn_lm": ("rnn_lm_pysource",),
}


def find(model: str, data: str | None = None) -> Recipe:
    """The recipe for a model, on this data set where there is one; else the model's first, else a plain one on digits.

    Raises:
      UserError: no such model.
    """
    if model not in zoo.list_models():
        raise UserError(nearest("model", model, zoo.list_models()))
    recipes = [importlib.import_module(f"experiments.recipes.{name}").RECIPE for name in DEFAULTS.get(model, ())]
    wanted = [r for r in recipes if data is None or r.data.partition(":")[0] == data.partition(":")[0]]
    return (wanted or recipes or [Recipe(model=model, data="digits")])[0]
