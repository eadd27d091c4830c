"""What a type checker knows of a model: its class from its name. `make lint` runs mypy and pyright (basedpyright) over it."""

from __future__ import annotations

from typing import assert_type

import jax
import numpy as np

import zoo


def main() -> None:
    model = zoo.create_model("resnet20_cifar", num_classes=np.int64(5), rngs=jax.random.key(0))
    assert_type(model, zoo.ResNet)
    model.reset_classifier(3, rngs=0)
    assert_type(zoo.create_model("lenet5").features(jax.numpy.zeros((1, 32, 32, 1))), dict[str, jax.Array])
    assert_type(zoo.create_model("dcgan"), zoo.Gan)
    print(model(jax.numpy.zeros((2, 32, 32, 3))).shape)


if __name__ == "__main__":
    main()
