_base_ = '../_base_/imagenet_poolformer.py'
model = dict(backbone=dict(arch='s12', drop_path_rate=0.1))
