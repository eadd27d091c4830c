"""VGG-16 on ImageNet.

    python -m experiments.train vgg16 --data imagefolder:/data/imagenet

74 epochs at batch 256 with the rate divided by ten three times, dropout 0.5 and weight decay 5e-4, as Simonyan and
Zisserman 2014, who report 73.0 % top-1 for configuration D with dense evaluation at scale 256 (table 3: 27.0 % error);
torchvision's weights, one 224x224 crop, have 71.59 %. Not run here.
"""

from experiments.recipes.settings import stepwise

RECIPE = stepwise(model="vgg16", epochs=74, batch_size=256, precision="bfloat16")
