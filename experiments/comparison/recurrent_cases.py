"""Recurrent operators to compare: shapes of the public benchmark and of published persistent kernels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import kernels
from experiments.comparison.case import Array, Case, Leaves, TorchPeer

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
PARTS = 3  # arrays of a layer in one direction: w_x, w_h, b


def recurrent_case(
    cell: str,
    batch: int,
    time: int,
    features: int,
    hidden: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    backward: bool = False,
    where: str = "",
    precision: str | None = None,
) -> Case:
    """A stack of layers on [batch, time, features], all weights among its inputs, one bias per gate."""
    directions, columns = 1 + bidirectional, GATES[cell] * hidden
    scale = hidden**-0.5
    inputs, units = [Array((batch, time, features))], 0
    width = features
    for _ in range(layers):
        for _ in range(directions):
            inputs += [Array((width, columns), scale), Array((hidden, columns), scale), Array((columns,), scale)]
            units += width + hidden
        width = directions * hidden
    weights = units * columns + layers * directions * columns
    x, y = batch * time * features, batch * time * width

    def forward(x: jax.Array, *arrays: jax.Array) -> jax.Array:
        parts = [kernels.CellWeights(*arrays[i : i + PARTS]) for i in range(0, len(arrays), PARTS)]
        stack = [parts[i : i + directions] for i in range(0, len(parts), directions)]
        return getattr(kernels, cell)(x, stack)[0]

    size = f"{batch}x{time}x{features}, {hidden} wide"
    size += f", {layers} layers" if layers > 1 else ""
    size += ", bidirectional" if bidirectional else ""
    return Case(
        cell,
        f"{where} {size}".strip(),
        tuple(inputs),
        forward,
        # What enters and leaves the stack; backward x, dy, dx, and the weights and their gradients.
        lambda item: item * ((3 * x + 2 * y + 3 * weights) if backward else x + y + weights),
        (3 if backward else 1) * 2.0 * batch * time * units * columns,
        tuple(range(len(inputs))) if backward else (),
        _torch_peer(cell, features, hidden, layers, bidirectional),
        lambda x, *arrays: _flax_stack(cell, hidden, directions, x, arrays),
        precision,
    )


def _torch_peer(cell: str, features: int, hidden: int, layers: int, bidirectional: bool) -> TorchPeer:
    """torch's own layer, cuDNN's on a GPU: called as its module does, on weights that lie in one piece as cuDNN wants them."""

    def forward(_: Any) -> Any:
        import torch

        function: Any = {"rnn": torch.rnn_tanh, "lstm": torch.lstm, "gru": torch.gru}[cell]
        directions = layers * (1 + bidirectional)

        def call(x: Any, *weights: Any) -> Any:
            zeros = torch.zeros(directions, x.shape[0], hidden, dtype=x.dtype, device=x.device)
            state = (zeros, zeros) if cell == "lstm" else zeros
            return function(x, state, weights, True, layers, 0.0, torch.is_grad_enabled(), bidirectional, True)[0]

        return call

    def prepare(tensors: list[Any]) -> list[Any]:
        import torch

        x, *arrays = tensors[: 1 + PARTS * layers * (1 + bidirectional)]
        module = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](
            features, hidden, layers, batch_first=True, bidirectional=bidirectional, dtype=x.dtype, device=x.device
        )
        with torch.no_grad():
            for number, (w_ih, w_hh, b_ih, b_hh) in enumerate(module.all_weights):
                w_x, w_h, b = arrays[PARTS * number : PARTS * (number + 1)]
                for target, source in ((w_ih, w_x.T), (w_hh, w_h.T), (b_ih, b)):
                    target.copy_(source)
                b_hh.zero_()
        module.flatten_parameters()
        return [x, *(w.detach() for w in module._flat_weights), *tensors[1 + len(arrays) :]]

    def restore(leaves: Leaves) -> Leaves:
        if len(leaves) == 1:
            return leaves
        y, dx, *gradients = leaves
        ours = [g.T if g.ndim == 2 else g for i, g in enumerate(gradients) if i % 4 != 3]  # ours has no second bias
        return [y, dx, *ours]

    return TorchPeer(forward, prepare, restore, every=True)


def _flax_stack(cell: str, hidden: int, directions: int, x: jax.Array, arrays: tuple[jax.Array, ...]) -> jax.Array:
    """flax.linen's cells, one nn.RNN per layer and direction; the parameters are slices of the case's weights."""
    import flax.linen as nn

    kinds = {"rnn": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
    for i in range(0, len(arrays), PARTS * directions):
        outputs: list[Any] = []
        for d in range(directions):
            w_x, w_h, b = arrays[i + PARTS * d : i + PARTS * (d + 1)]
            layer = nn.RNN(kinds[cell](hidden, dtype=x.dtype), reverse=d == 1, keep_order=True)
            outputs.append(layer.apply({"params": {"cell": _flax_params(cell, w_x, w_h, b)}}, x))
        x = jnp.concatenate(outputs, -1)
    return x


def _flax_params(cell: str, w_x: jax.Array, w_h: jax.Array, b: jax.Array) -> dict[str, Any]:
    """A cell's parameters by flax.linen's names."""
    if cell == "rnn":
        return {"i": {"kernel": w_x, "bias": b}, "h": {"kernel": w_h}}
    names = "ifgo" if cell == "lstm" else "rzn"
    split = lambda a: jnp.split(a, len(names), -1)
    params: dict[str, Any] = {}
    for name, x_kernel, h_kernel, bias in zip(names, split(w_x), split(w_h), split(b), strict=True):
        if cell == "lstm":  # the bias is the hidden side's
            params |= {f"i{name}": {"kernel": x_kernel}, f"h{name}": {"kernel": h_kernel, "bias": bias}}
        else:
            params |= {f"i{name}": {"kernel": x_kernel, "bias": bias}, f"h{name}": {"kernel": h_kernel}}
    if cell == "gru":
        params["hn"]["bias"] = jnp.zeros_like(split(b)[2])
    return params


def recurrent_cases(platform: str, quick: bool) -> list[Case]:
    """Forward, and forward and backward."""
    public: dict[str, Any]
    if platform != "cuda":
        small = [(cell, 8, 32, 64, 64) for cell in GATES] if quick else [(cell, 32, 128, 256, 256) for cell in GATES]
        cases = [recurrent_case(*shape, backward=backward) for shape in small for backward in (False, True)]
        if not quick:
            public = {"layers": 6, "where": "public benchmark"}
            cases += [recurrent_case("lstm", 10, 64, 128, 256, bidirectional=both, **public) for both in (False, True)]
            cases.append(recurrent_case("rnn", 8, 64, 1024, 256, where="public benchmark"))
        return cases
    # KernelBench level 3, forward there; and what persistent kernels are published with: cuDNN's fp16 LSTM 768 wide.
    public = {"where": "public benchmark", "precision": "float32"}
    six = [
        recurrent_case("lstm", 10, 512, 128, 256, layers=6, bidirectional=both, backward=backward, **public)
        for both in (False, True)
        for backward in (False, True)
    ]
    cases = [*six, recurrent_case("rnn", 8, 256, 1024, 256, **public)]
    for cell in ("lstm", "gru", "rnn"):
        for shape in ((16, 1024, 768, 768), (32, 128, 256, 256), (64, 256, 1024, 1024), (8, 256, 1024, 256)):
            precision = "float16" if shape[-1] == 768 else None
            cases += [recurrent_case(cell, *shape, backward=backward, precision=precision) for backward in (False, True)]
    return cases
