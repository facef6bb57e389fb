# What runs beside a network: checkpoints without code, resuming without past batches, mean losses, checks of
# weights and data, a record; `mmmeta.engine.Runner` lists it. Configs of other projects take it by this base.
custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
runner_type = 'mmmeta.Runner'
