"""torch's twins of the zoo's models, with the same weights, as contenders. Imported where a peer is asked for."""

from __future__ import annotations

import numpy as np
import torch

from experiments.comparison.case import images_first, images_last
from experiments.comparison.models import BLOCK, ModelCase
from experiments.comparison.programs import LEARNING_RATE, Weights
from experiments.measuring.clock import Contender
from experiments.peers import torch_runtime
from experiments.peers.torch_vision import torch_loss, torchvision_models

RECURRENT = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "bilstm": torch.nn.LSTM}


class LeNet5(torch.nn.Module):
    """The modern LeNet-5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = torch.nn.Conv2d(1, 6, 5), torch.nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = torch.nn.Linear(400, 120), torch.nn.Linear(120, 84), torch.nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in (self.conv1, self.conv2):
            x = torch.nn.functional.max_pool2d(torch.relu(conv(x)), 2)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))


class SequenceModel(torch.nn.Module):
    """An optional embedding, a recurrent layer, and a linear layer on every step or the final state; sizes from the weights."""

    def __init__(self, name: str, state: dict[str, torch.Tensor]):
        super().__init__()
        self.last_only = name.endswith("classifier")
        tokens = state.get("embedding.weight")
        self.embedding = None if tokens is None else torch.nn.Embedding(*tokens.shape)
        hidden, features = state["recurrent.weight_hh_l0"].shape[1], state["recurrent.weight_ih_l0"].shape[1]
        kind = RECURRENT[name.partition("_")[0]]
        self.recurrent = kind(features, hidden, batch_first=True, bidirectional=name.startswith("bi"))
        self.head = torch.nn.Linear(state["head.weight"].shape[1], state["head.weight"].shape[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, final = self.recurrent(x if self.embedding is None else self.embedding(x))
        if self.last_only:
            h = final[0] if isinstance(final, tuple) else final
            outputs = torch.cat(list(h), -1)
        return self.head(outputs)


def twin(case: ModelCase, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """torch's model of the same name, with these weights; for torchvision's none are drawn first, which would take long."""
    if case.model == "lenet5" or case.family == "recurrent":
        model: torch.nn.Module = LeNet5() if case.model == "lenet5" else SequenceModel(case.model, state)
        model.load_state_dict(state)
        return model
    models = torchvision_models()
    with torch.device("meta"):
        if case.model == BLOCK:
            shortcut = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 1, bias=False), torch.nn.BatchNorm2d(64))
            model = models.resnet.BasicBlock(3, 64, downsample=shortcut)
        elif case.model == "googlenet":
            model = models.googlenet(init_weights=False, dropout=0.0, dropout_aux=0.0)
        else:
            model = getattr(models, case.model)(**({"dropout": 0.0} if case.family in ("alexnet", "vgg") else {}))
    model.load_state_dict(state, assign=True)
    return model


def torch_contender(weights: Weights, precision: str, compiled: bool) -> Contender:
    """The twin, images and kernels channels last in memory. Training in less than float32 is torch's autocast; in inference the
    weights are held in the precision."""
    case, device, dtype = weights.case, torch_runtime.device(), getattr(torch, precision)
    model = twin(case, weights.torch_state_dict()).to(device).train(case.train)
    if len(case.shape) == 4:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not case.train:
        model = model.to(dtype)
    params = [p for p in model.parameters() if p.requires_grad]
    call = torch.compile(model) if compiled else model
    autocast = torch.autocast(device, dtype, enabled=dtype is not torch.float32)

    def infer(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return call(x)

    def step(x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast:
            loss = torch_loss(call(x), target)
        gradients = torch.autograd.grad(loss, params)
        norm = torch.nn.utils.get_total_norm(gradients)
        with torch.no_grad():
            torch._foreach_add_(list(params), gradients, alpha=-LEARNING_RATE)
        return loss.detach(), norm

    def prepare(inputs: list[np.ndarray]) -> list[torch.Tensor]:
        tensors = [torch.from_numpy(x).to(device) for x in inputs]
        tensors = [t.to(dtype) if t.is_floating_point() else t.long() for t in tensors]
        return images_first(tensors)

    to_numpy = lambda out: images_last(torch_runtime.to_numpy(out))
    return Contender(step if case.train else infer, torch_runtime.wait, prepare, to_numpy, profiled=False)
