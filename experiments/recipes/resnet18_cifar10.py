"""ResNet-18 on CIFAR-10, with ImageNet's stem on 32x32 images.

    python -m experiments.train resnet18 --data cifar10:/data/cifar-10-batches-bin

30 epochs. There is no published figure for this stem at this length: ResNet-18 with a 3x3 stem and 200 epochs has 95.28 %
(DeVries and Taylor 2017, Improved regularization with cutout, table 1), and the coarser stem costs several points. Not run
here.
"""

from experiments.recipes.settings import cifar

RECIPE = cifar(model="resnet18", epochs=30, schedule="one_cycle", weight_decay=5e-4)
