"""The classic neural networks in Flax NNX, with hand-written GPU kernels where they pay.

import zoo
model = zoo.create_model("lenet5", rngs=0)
logits = model(images)                        # [batch, 32, 32, 1] -> [batch, 10]
params, state, apply = zoo.functional(model)  # the same as a pure function
"""

from zoo import shadowing

shadowing.check()  # before the first import of kernels

from zoo.compiling import compiler_options
from zoo.export import export_model, export_onnx
from zoo.features import features
from zoo.functional import evaluation_view, functional, split, training_view
from zoo.hub import push_to_hub
from zoo.images import preprocess
from zoo.layers.recurrent import Recurrent
from zoo.models.alexnet import AlexNet, AlexNetOriginal
from zoo.models.base import FeatureInfo
from zoo.models.gan import Gan
from zoo.models.googlenet import GoogLeNet, GoogLeNetOriginal, GoogLeNetOutputs
from zoo.models.lenet import LeNet5, LeNet5Original
from zoo.models.recurrent import LanguageModel, SequenceClassifier, Tagger
from zoo.models.resnet import ResNet
from zoo.models.vgg import VGG
from zoo.prediction import Prediction, predict
from zoo.preprocessing import Preprocessing
from zoo.registry import ModelInfo, create_model, list_models, model_info, register
from zoo.saving import load_model, save_model
from zoo.stages import stages
from zoo.summary import count_macs, count_params, summarize
from zoo.weights import WeightsInfo, load_weights, save_weights, to_torch_state_dict, weights_info
from zoo.weights.download import download

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
    "functional",
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
