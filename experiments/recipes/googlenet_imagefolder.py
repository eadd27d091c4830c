"""GoogLeNet on a folder of images, with its two auxiliary heads at weight 0.3.

    python -m experiments.train googlenet --data imagefolder:/data/photographs

torchvision's weights have 69.78 % top-1 on ImageNet with one 224x224 crop; Szegedy et al. 2014 report 10.07 % top-5 error
for one network and one crop (table 3). Batch normalization allows the higher rate used here (Ioffe and Szegedy 2015). Not
run here.
"""

from experiments.recipes.settings import imagenet

RECIPE = imagenet(model="googlenet", label_smoothing=0.1)
