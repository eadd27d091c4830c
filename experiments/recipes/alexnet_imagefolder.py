"""AlexNet on a folder of images.

    python -m experiments.train alexnet --data imagefolder:/data/photographs

90 epochs at batch 128, rate 0.01 divided by ten three times, momentum 0.9 and weight decay 5e-4, as Krizhevsky et al. 2012,
who report 59.3 % top-1 on ImageNet for one network with ten crops (40.7 % error); torchvision's weights, one crop, have
56.52 %. Not run here.
"""

from experiments.recipes.settings import stepwise

RECIPE = stepwise(model="alexnet", epochs=90)
