"""torchvision's models as peers, and what is needed to compare with them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import zoo
from experiments.losses import AUXILIARY, cross_entropy


class Evaluation(NamedTuple):
    """Of two networks with the same weights, relative to the largest magnitude of torch's: how far their outputs are apart, and
    how far torch's are from those of other images. Where the second is small the first says nothing."""

    error: float
    change: float


_libraries: list[torch.library.Library] = []  # what a library declares lasts as long as the object


@functools.cache
def torchvision_models() -> ModuleType:
    """torchvision.models; its compiled operators, which no classifier here uses, are declared where they are missing."""
    # Its own operators come first: one that were declared here before them would be declared twice.
    found = importlib.util.find_spec("torchvision")
    for path in pathlib.Path(found.origin).parent.glob("_C*.so") if found is not None and found.origin else ():
        with contextlib.suppress(OSError, ImportError):  # built for CUDA, on a machine without
            torch.ops.load_library(str(path))
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    import torchvision.models

    return torchvision.models


def torch_model(name: str, *, seed: int = 0, in_channels: int = 3, dropout: float = 0.0, **options: Any) -> torch.nn.Module:
    """torchvision's model with random weights, and with random norms and running statistics, so that each one matters.

    GoogLeNet's weights have He's variance: with torch's own its norms' biases leave nothing of what tells images apart.
    """
    torch.manual_seed(seed)
    if name == "googlenet":
        options |= {"init_weights": False, "dropout_aux": 0.0}
    if not name.startswith(("res", "wide")):
        options["dropout"] = dropout
    model = getattr(torchvision_models(), name)(**options)
    if in_channels != 3:
        replace_first_layer(model, in_channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                norm: Any = module
                for tensor, low, high in (
                    (norm.weight, 0.5, 1.5),
                    (norm.bias, -0.5, 0.5),
                    (norm.running_mean, -0.5, 0.5),
                    (norm.running_var, 0.5, 1.5),
                ):
                    tensor.uniform_(low, high, generator=generator)
                norm.num_batches_tracked.fill_(7)
            elif name == "googlenet":
                _he(module, generator)
    return model


def _he(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights of He's variance, under which a deep network still tells images apart (He et al. 2015)."""
    if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
        module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)


def replace_first_layer(model: torch.nn.Module, in_channels: int) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            module: Any = layer
            parent, _, attribute = name.rpartition(".")
            new = torch.nn.Conv2d(
                in_channels,
                module.out_channels,
                module.kernel_size,
                module.stride,
                module.padding,
                bias=module.bias is not None,
            )
            setattr(model.get_submodule(parent), attribute, new)
            return


def zoo_model(name: str, weights: Any, **options: Any) -> nnx.Module:
    """The zoo's model with `weights`; nothing is drawn for it first, which takes seconds where there are 100 million."""
    if not name.startswith(("res", "wide")):
        options.setdefault("dropout", 0.0)
    if name == "googlenet":
        options.setdefault("dropout_aux", 0.0)
    model = nnx.eval_shape(lambda: zoo.create_model(name, **options))
    zoo.load_weights(model, weights)
    return model


def quick_jit(function: Any) -> Any:
    """jax.jit that compiles in half the time, for programs that run once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def to_torch(images: np.ndarray) -> torch.Tensor:
    """[batch, height, width, channels] to torch's order."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _others(images: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).normal(size=images.shape).astype(images.dtype)


def _compared(ours: np.ndarray, theirs: np.ndarray, others: np.ndarray) -> Evaluation:
    assert ours.shape == theirs.shape
    apart = lambda a: float(np.abs(a - theirs).max() / np.abs(theirs).max())
    return Evaluation(apart(ours), apart(others))


def vgg_trunk_evaluation(name: str, images: np.ndarray) -> Evaluation:
    """As `evaluation`, of a VGG's convolutions: the dense layers' 120 million weights are one zero, broadcast."""
    with torch.device("meta"):
        peer = getattr(torchvision_models(), name)()
    torch.manual_seed(0)
    trunk = peer.features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in trunk.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            _he(module, generator)
    weights = {f"features.{n}": t for n, t in trunk.state_dict().items()}
    weights |= {f"classifier.{n}": torch.zeros(()).expand(t.shape) for n, t in peer.classifier.state_dict().items()}
    graph, state = nnx.split(zoo.evaluation_view(zoo_model(name, weights)))
    ours = np.asarray(quick_jit(lambda state, x: zoo.features(nnx.merge(graph, state), x)["block5"])(state, images))
    with torch.no_grad():
        theirs, others = (trunk.eval()(to_torch(x)).numpy().transpose(0, 2, 3, 1) for x in (images, _others(images)))
    return _compared(ours, theirs, others)


def torch_loss(outputs: Any, target: torch.Tensor) -> torch.Tensor:
    """As `losses.cross_entropy`, of the outputs of torch's model: logits, or GoogLeNet's with those of its auxiliary heads."""
    heads = [outputs] if isinstance(outputs, torch.Tensor) else [outputs.logits, outputs.aux_logits1, outputs.aux_logits2]
    exact = lambda logits: logits if logits.dtype == torch.float64 else logits.float()
    mean = lambda logits: torch.nn.functional.cross_entropy(exact(logits).flatten(0, -2), target.flatten())
    return mean(heads[0]) + AUXILIARY * sum(map(mean, heads[1:]), torch.zeros((), device=target.device))


def evaluation(name: str, images: np.ndarray, ours: dict[str, Any] | None = None, **options: Any) -> Evaluation:
    """The logits in evaluation mode; `ours` are options of the zoo's model alone."""
    peer = torch_model(name, in_channels=images.shape[-1], **options).eval()
    model = zoo_model(name, peer.state_dict(), in_channels=images.shape[-1], **(options | (ours or {})))
    params, state, apply = zoo.functional(model)
    found = np.asarray(quick_jit(apply)(params, state, images)[0])
    with torch.no_grad():
        theirs, others = (peer(to_torch(x)).numpy() for x in (images, _others(images)))
    return _compared(found, theirs, others)


def training_errors(
    name: str, images: np.ndarray, labels: np.ndarray, dtype: Any = np.float32, **options: Any
) -> dict[str, float]:
    """One pass in training mode, without dropout: relative differences from torch.

    Returns:
      loss; gradient: the worst of all parameters, each relative to its own largest gradient (a bias in front of a batch
      norm, whose gradient is zero but for rounding, to the largest of all); statistics: the worst running statistic.
    """
    peer = _training_peer(name, images, dtype, options)
    with jax.enable_x64(dtype == np.float64):
        model = zoo_model(name, peer.state_dict(), in_channels=images.shape[-1], param_dtype=dtype, **options)
        params, state, apply = zoo.functional(model)

        def loss(params: Any) -> tuple[jax.Array, Any]:
            outputs, new_state = apply(params, state, jnp.asarray(images, dtype), train=True)
            return cross_entropy(outputs, jnp.asarray(labels))[0], new_state

        (value, new_state), gradient = quick_jit(jax.value_and_grad(loss, has_aux=True))(params)
        nnx.update(model, as_state(nnx.state(model, nnx.Param), gradient))
        nnx.update(model, as_state(nnx.state(model, nnx.BatchStat), new_state))
        ours = zoo.weights.torch_arrays(model)

    return _relative(float(value), ours, *_torch_pass(peer, images, labels, dtype))


def training_changes(
    name: str, images: np.ndarray, labels: np.ndarray, dtype: Any = np.float32, **options: Any
) -> dict[str, float]:
    """As `training_errors`, between torch's model and itself, on these images and on others."""
    total, gradients, statistics = _torch_pass(_training_peer(name, images, dtype, options), _others(images), labels, dtype)
    given = _torch_pass(_training_peer(name, images, dtype, options), images, labels, dtype)
    return _relative(total, gradients | statistics, *given)


def _training_peer(name: str, images: np.ndarray, dtype: Any, options: dict[str, Any]) -> torch.nn.Module:
    peer = torch_model(name, in_channels=images.shape[-1], **options)
    return peer.to(torch.float64 if dtype == np.float64 else torch.float32).train()


Arrays = dict[str, Any]


def _torch_pass(peer: torch.nn.Module, images: np.ndarray, labels: np.ndarray, dtype: Any) -> tuple[float, Arrays, Arrays]:
    """Loss, gradients and running statistics."""
    total = torch_loss(peer(to_torch(images.astype(dtype))), torch.from_numpy(labels).long())
    total.backward()
    gradients = {n: p.grad.numpy() for n, p in peer.named_parameters() if p.grad is not None}
    return total.item(), gradients, {n: b.numpy() for n, b in peer.named_buffers()}


def _relative(value: float, ours: Arrays, total: float, gradients: Arrays, statistics: Arrays) -> dict[str, float]:
    for counter in (n for n in statistics if n.endswith("num_batches_tracked")):
        assert ours[counter] == statistics[counter]
    largest = max(np.abs(g).max() for g in gradients.values())

    def relative(name: str, expected: np.ndarray) -> float:
        zero = (
            name.startswith("features")
            and name.endswith("bias")
            and name.removesuffix("bias") + "running_mean" not in statistics
        )
        scale = largest if zero and statistics else np.abs(expected).max()
        return float(np.abs(ours[name] - expected).max() / scale)

    return {
        "loss": abs(value - total) / total,
        "gradient": max(relative(n, g) for n, g in gradients.items()),
        "statistics": max((relative(n, b) for n, b in statistics.items() if b.dtype.kind == "f"), default=0.0),
    }


def as_state(template: nnx.State, values: Any) -> nnx.State:
    """The values of a pure dict in the structure of a state."""
    return jax.tree.unflatten(jax.tree.structure(template), jax.tree.leaves(values))
