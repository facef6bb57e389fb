# ImageNet-C for a classifier of ImageNet-1K: tools/test.py CONFIG CHECKPOINT --test-data THIS_FILE. Its
# images are of 224x224 pixels as they are.
test_dataloader = dict(dataset=dict(type='mmmeta.ImageNetC', data_root='data/imagenet-c'))
test_evaluator = dict(type='mmmeta.CorruptionError')
