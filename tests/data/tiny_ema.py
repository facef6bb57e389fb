# A run that is hard to resume: no seed, workers that prefetch, weight averages, checkpoints that are pruned.
_base_ = './tiny_upernet.py'
randomness = dict(seed=None)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
train_dataloader = dict(num_workers=2)
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=2))
