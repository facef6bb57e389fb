"""A runner that is built from a config of any project."""

import torch
from mmengine.model import BaseModel

from mmmeta.engine.runner import Runner


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(1, 2)

    def forward(self, inputs, mode):
        return dict(loss=self.backbone(inputs).sum())


def test_a_runner_of_a_dict_writes_checkpoints_without_code(tmp_path):
    data = dict(dataset=[torch.ones(1)] * 4, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2)
    data.update(collate_fn=lambda batch: dict(inputs=torch.stack(batch)))
    cfg = dict(model=Line(), work_dir=str(tmp_path), train_dataloader=data, runner_type='mmmeta.Runner')
    optimizer = dict(type='AdamW', lr=0.1)
    cfg.update(optim_wrapper=dict(optimizer=optimizer, paramwise_cfg=dict(flat_decay_mult=0.0)))
    cfg.update(train_cfg=dict(by_epoch=False, max_iters=2))
    runner = Runner.from_cfg(cfg)
    # Read by hand before a training, a checkpoint is the caller's business.
    torch.save(dict(state_dict={'backbone.bias': torch.zeros(2)}), tmp_path / 'part.pth')
    runner.load_checkpoint(str(tmp_path / 'part.pth'))
    runner.train()
    assert torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['meta']['iter'] == 2
    # PyTorch compiles the step of an optimiser whose groups are dicts and nothing else.
    assert [type(group) for group in runner.optim_wrapper.optimizer.param_groups] == [dict, dict]
