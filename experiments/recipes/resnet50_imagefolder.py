"""ResNet-50 on ImageNet.

    python -m experiments.train resnet50 --data imagefolder:/data/imagenet --mesh data=-1

PATH holds train/ and val/ with a folder per class. 90 epochs at batch 256, as He et al. 2015 with the schedule of Goyal et
al. 2017 (Accurate, large minibatch SGD: 76.4 % top-1, one 224x224 crop of the validation set, ResNet-50 with the stride on
the 3x3); torchvision's own weights of this recipe have 76.13 % (its IMAGENET1K_V1). Not run here: at 2,500 images a second
it takes thirteen hours.
"""

from experiments.recipes.settings import imagenet

RECIPE = imagenet(model="resnet50", model_options="zero_init_residual=True")
