"""The classic neural networks in Flax NNX, with hand-written GPU kernels where they pay.

import zoo
model = zoo.create_model("lenet5", rngs=0)
logits = model(images)                        # [batch, 32, 32, 1] -> [batch, 10]
params, state, apply = zoo.functional(model)  # the same as a pure function
"""

from zoo.features import features
from zoo.functional import evaluation_view, functional, split, training_view
from zoo.models.lenet import LeNet5, LeNet5Original
from zoo.registry import ModelInfo, create_model, list_models, model_info
from zoo.summary import count_macs, count_params, summarize

__all__ = [
    "LeNet5",
    "LeNet5Original",
    "ModelInfo",
    "count_macs",
    "count_params",
    "create_model",
    "evaluation_view",
    "features",
    "functional",
    "list_models",
    "model_info",
    "split",
    "summarize",
    "training_view",
]
