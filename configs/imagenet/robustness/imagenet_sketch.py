# ImageNet-Sketch for a classifier of ImageNet-1K: tools/test.py CONFIG CHECKPOINT --test-data THIS_FILE.
test_dataloader = dict(dataset=dict(type='mmmeta.ImageNetSubset', data_root='data/imagenet-sketch'))
test_evaluator = dict(type='Accuracy', topk=(1, 5))
