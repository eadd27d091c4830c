"""ResNet-20 on CIFAR-10, as He et al. 2015.

    python -m experiments.train resnet20_cifar --data cifar10:/data/cifar-10-batches-bin

64,000 iterations at batch 128 (164 epochs), rate 0.1 divided by ten, weight decay 1e-4, shifts by 4 pixels and flips: 91.25
% (their table 6: 8.75 % error). Not run here.
"""

from experiments.recipes.settings import cifar

RECIPE = cifar(model="resnet20_cifar", epochs=164, schedule="step", weight_decay=1e-4, evaluate_every=5, checkpoint_every=5)
