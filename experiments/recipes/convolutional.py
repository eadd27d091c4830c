"""Convolutional networks on the digits, CIFAR-10 and folders of images.

Accuracies on CIFAR-10 and ImageNet are what others report; these recipes were not run here. ImageNet is a folder with train/
and val/, and in each a folder per class: python -m experiments.train resnet50 --data imagefolder:PATH. At 2,500 images a second
ResNet-50's 90 epochs take thirteen hours.
"""

import functools

from experiments.recipes.recipe import Recipe

# Momentum SGD: on ImageNet for networks with batch norm (Goyal et al. 2017), on CIFAR-10, and as the networks before batch norm
# were trained.
imagenet = functools.partial(
    Recipe, data="imagefolder", epochs=90, batch_size=256, optimizer="sgd", learning_rate=0.1, warmup_epochs=5,
    weight_decay=1e-4, precision="bfloat16",
)  # fmt: skip
cifar = functools.partial(Recipe, data="cifar10", optimizer="sgd", learning_rate=0.1)
stepwise = functools.partial(
    Recipe, data="imagefolder", optimizer="sgd", learning_rate=0.01, schedule="step", weight_decay=5e-4
)

RECIPES = (
    # 18 to 28 seconds on two CPU cores, compilation included; 98.3 to 99.2 % of the test images (ten seeds,
    # experiments/results/cpu/lenet5-digits.json).
    Recipe("lenet5", "digits", epochs=20, batch_size=32, learning_rate=3e-3, weight_decay=0.02, ema=0.98),
    Recipe("lenet5_original", "digits", epochs=30, batch_size=32, learning_rate=2e-3, ema=0.98),
    # Aim: 98.5 % of the test images, for three seeds in experiments/results/cpu/conv-learning.json.
    Recipe(
        "resnet20_cifar", "digits", epochs=15, batch_size=64, learning_rate=5e-3, weight_decay=0.02, schedule="one_cycle",
        ema=0.98,
    ),
    # He et al. 2015: 64,000 iterations at batch 128 (164 epochs); 91.25 % (their table 6: 8.75 % error).
    cifar("resnet20_cifar", epochs=164, schedule="step", weight_decay=1e-4, evaluate_every=5, checkpoint_every=5),
    # ImageNet's stem on 32x32 images. No figure is published for this stem at this length: with a 3x3 stem and 200 epochs it is
    # 95.28 % (DeVries and Taylor 2017, Improved regularization with cutout, table 1); the coarser stem costs several points.
    cifar("resnet18", epochs=30, schedule="one_cycle", weight_decay=5e-4),
    # Krizhevsky et al. 2012: 59.3 % top-1 for one network with ten crops (40.7 % error); torchvision's weights, one crop,
    # 56.52 %.
    stepwise("alexnet", epochs=90),
    # Simonyan and Zisserman 2014: 73.0 % top-1 for configuration D with dense evaluation at scale 256 (table 3: 27.0 % error);
    # torchvision's weights, one 224x224 crop, 71.59 %.
    stepwise("vgg16", epochs=74, batch_size=256, precision="bfloat16"),
    # With both auxiliary heads. Szegedy et al. 2014: 10.07 % top-5 error for one network and one crop (table 3); torchvision's
    # weights, one 224x224 crop, 69.78 % top-1. Batch norm allows the higher rate used here (Ioffe and Szegedy 2015).
    imagenet("googlenet", label_smoothing=0.1),
    # He et al. 2015 with the schedule of Goyal et al. 2017 (Accurate, large minibatch SGD): 76.4 % top-1, one 224x224 crop, the
    # stride on the 3x3; torchvision's own weights of this recipe (IMAGENET1K_V1) have 76.13 %.
    imagenet("resnet50", model_options="zero_init_residual=True"),
)  # fmt: skip
