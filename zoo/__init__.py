"""The classic neural networks in Flax NNX, with hand-written GPU kernels where they pay.

import zoo
model = zoo.create_model("lenet5", rngs=0)
logits = model(images)                        # [batch, 32, 32, 1] -> [batch, 10]
params, state, apply = zoo.functional(model)  # the same as a pure function
"""

from typing import TYPE_CHECKING

from zoo import lazy, shadowing

shadowing.check()  # before the first import of kernels

# Imported with the zoo: the registry, and the functions that bear the name of the module they stand in.
from zoo.features import features
from zoo.functional import evaluation_view, functional, split, training_view
from zoo.preprocessing import Preprocessing
from zoo.registry import ModelInfo, create_model, list_models, model_info, register
from zoo.stages import stages

if TYPE_CHECKING:
    from zoo.compiling import compiler_options
    from zoo.export import export_model, export_onnx
    from zoo.folding import fold_batch_norm
    from zoo.hub import push_to_hub
    from zoo.images import preprocess
    from zoo.layers.recurrent import Recurrent
    from zoo.memory import keep_freed_memory
    from zoo.models.alexnet import AlexNet, AlexNetOriginal
    from zoo.models.base import FeatureInfo
    from zoo.models.gan import Gan
    from zoo.models.googlenet import GoogLeNet, GoogLeNetOriginal, GoogLeNetOutputs
    from zoo.models.lenet import LeNet5, LeNet5Original
    from zoo.models.recurrent import LanguageModel, SequenceClassifier, Tagger
    from zoo.models.resnet import ResNet
    from zoo.models.vgg import VGG
    from zoo.prediction import Prediction, predict
    from zoo.saving import load_model, save_model
    from zoo.summary import count_macs, count_params, summarize
    from zoo.weights.download import download
    from zoo.weights.info import WeightsInfo, weights_info
    from zoo.weights.load import load_weights, save_weights, to_torch_state_dict

# The same for who runs it: imported when first asked for. A test holds them against each other.
_HOMES = {
    "zoo.compiling": ("compiler_options",),
    "zoo.export": ("export_model", "export_onnx"),
    "zoo.folding": ("fold_batch_norm",),
    "zoo.hub": ("push_to_hub",),
    "zoo.images": ("preprocess",),
    "zoo.layers.recurrent": ("Recurrent",),
    "zoo.memory": ("keep_freed_memory",),
    "zoo.models.alexnet": ("AlexNet", "AlexNetOriginal"),
    "zoo.models.base": ("FeatureInfo",),
    "zoo.models.gan": ("Gan",),
    "zoo.models.googlenet": ("GoogLeNet", "GoogLeNetOriginal", "GoogLeNetOutputs"),
    "zoo.models.lenet": ("LeNet5", "LeNet5Original"),
    "zoo.models.recurrent": ("LanguageModel", "SequenceClassifier", "Tagger"),
    "zoo.models.resnet": ("ResNet",),
    "zoo.models.vgg": ("VGG",),
    "zoo.prediction": ("Prediction", "predict"),
    "zoo.saving": ("load_model", "save_model"),
    "zoo.summary": ("count_macs", "count_params", "summarize"),
    "zoo.weights.download": ("download",),
    "zoo.weights.info": ("WeightsInfo", "weights_info"),
    "zoo.weights.load": ("load_weights", "save_weights", "to_torch_state_dict"),
}
if not TYPE_CHECKING:  # a checker that saw it would take every name for a name of the zoo
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)

__version__ = "0.1.0"

__all__ = [
    "VGG",
    "AlexNet",
    "AlexNetOriginal",
    "FeatureInfo",
    "Gan",
    "GoogLeNet",
    "GoogLeNetOriginal",
    "GoogLeNetOutputs",
    "LanguageModel",
    "LeNet5",
    "LeNet5Original",
    "ModelInfo",
    "Prediction",
    "Preprocessing",
    "Recurrent",
    "ResNet",
    "SequenceClassifier",
    "Tagger",
    "WeightsInfo",
    "compiler_options",
    "count_macs",
    "count_params",
    "create_model",
    "download",
    "evaluation_view",
    "export_model",
    "export_onnx",
    "features",
    "fold_batch_norm",
    "functional",
    "keep_freed_memory",
    "list_models",
    "load_model",
    "load_weights",
    "model_info",
    "predict",
    "preprocess",
    "push_to_hub",
    "register",
    "save_model",
    "save_weights",
    "split",
    "stages",
    "summarize",
    "to_torch_state_dict",
    "training_view",
    "weights_info",
]
