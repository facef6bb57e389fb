# ImageNet-A for a classifier of ImageNet-1K: tools/test.py CONFIG CHECKPOINT --test-data THIS_FILE. Only
# the scores of the 200 classes that it has count.
test_dataloader = dict(dataset=dict(type='mmmeta.ImageNetSubset', data_root='data/imagenet-a'))
test_evaluator = dict(type='mmmeta.SubsetAccuracy', topk=(1, 5))
