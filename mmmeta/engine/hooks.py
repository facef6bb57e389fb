"""Hooks for training and testing."""

import os
from collections import deque
from typing import Any

import torch
from mmengine.dist import all_reduce_dict, get_world_size, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from mmmeta.errors import UsageError
from mmmeta.models import MetaFormer
from mmmeta.registry import HOOKS

from .checkpoint import check_backbone_complete, check_complete, convert_checkpoint, from_plain, to_plain


def _train_sampler(runner: Runner) -> Any:
    """The sampler that draws the training images."""
    dataloader = getattr(runner.train_loop, 'dataloader', None)
    if dataloader is None:  # a loop over several data loaders
        return None
    if hasattr(dataloader.sampler, 'seed'):
        return dataloader.sampler
    return getattr(dataloader.batch_sampler, 'sampler', None)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's ``CheckpointHook``, whose files load without executing code and are written atomically.

    The arguments are those of MMEngine's. What differs:

    - every file loads with ``torch.load(path, weights_only=True)`` and still resumes exactly;
    - a file appears under its name when it is complete, and older ones are pruned (``max_keep_ckpts``)
      after that: a run that is killed while it saves keeps the previous checkpoint;
    - the seed of the training sampler is saved and restored, so that a run without a fixed seed resumes
      with the same order of the data.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn the checkpoint into plain values; runs after the other hooks, by its priority."""
        seed = getattr(_train_sampler(runner), 'seed', None)
        checkpoint['meta']['sampler_seed'] = None if seed is None else int(seed)
        for key, value in checkpoint.items():
            checkpoint[key] = to_plain(value, key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn plain values back into MMEngine's objects."""
        for key, value in checkpoint.items():
            checkpoint[key] = from_plain(value)
        seed = checkpoint.get('meta', {}).get('sampler_seed')
        if runner._resume and seed is not None:
            _train_sampler(runner).seed = seed

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0:
            ids = [i for i in self.keep_ckpt_ids if i != step] + [step]
            outdated = ids[: -self.max_keep_ckpts]
            self.keep_ckpt_ids = deque(ids[-self.max_keep_ckpts :], self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)

        local = isinstance(self.file_backend, LocalBackend)
        runner.save_checkpoint(
            self.out_dir,
            f'{filename}.part' if local else filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        if local:
            os.replace(f'{self.last_ckpt}.part', self.last_ckpt)
        pointer = os.path.join(runner.work_dir, 'last_checkpoint')
        with open(f'{pointer}.part', 'w') as file:
            file.write(self.last_ckpt)
        os.replace(f'{pointer}.part', pointer)
        for old in outdated:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)


def _bare_model(runner: Runner) -> torch.nn.Module:
    """The model without the wrappers of distributed training and test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@HOOKS.register_module()
class CompleteWeightsHook(Hook):
    """Refuse a checkpoint that does not fit the config's model.

    MMEngine loads what fits, logs a warning, and continues with a network of which parts are random. A test
    needs exactly the tensors of the model, a training that starts from a checkpoint those of the backbone:
    heads may differ, as for another number of classes. A checkpoint in the layout of another repository is
    converted first.
    """

    # Before other hooks, such as EMAHook, read what was loaded.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes before anything is loaded; not when a run is resumed."""
        model, source = _bare_model(runner), runner._load_from
        # Loops are built when they start; until then the runner has their configs.
        trains, validates, tests = (
            isinstance(loop, BaseLoop) for loop in (runner._train_loop, runner._val_loop, runner._test_loop)
        )
        if tests or (validates and not trains):
            convert_checkpoint(checkpoint, source)
            check_complete(model, checkpoint['state_dict'], source)
        elif trains and not runner._resume and isinstance(getattr(model, 'backbone', None), MetaFormer):
            convert_checkpoint(checkpoint, source)
            check_backbone_complete(model.backbone, checkpoint['state_dict'], source)


@HOOKS.register_module()
class CocoCheckHook(Hook):
    """Reject COCO-style data that MMDetection would silently train or test on wrongly.

    MMDetection skips annotations of categories that it does not know, numbers the classes by those that the
    file has, and fails on a missing image only when it is loaded.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the data of training, and of validation if there is any."""
        self._check(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            self._check(runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Check the data of the test."""
        self._check(runner.test_dataloader.dataset)

    def _check(self, dataset: Any) -> None:
        parts = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
        for part in filter(None, parts):  # inside ConcatDataset, RepeatDataset and the like
            self._check(part)
        if not (hasattr(dataset, 'cat_ids') and hasattr(dataset, 'cat_img_map')):
            return
        classes, name = dataset.metainfo['classes'], type(dataset).__name__
        remedy = 'or name the classes to train on in metainfo=dict(classes=...) of the data set'
        if len(dataset.cat_ids) != len(classes):
            raise UsageError(
                f"'{dataset.ann_file}' lists {len(dataset.cat_ids)} of the {len(classes)} classes of {name}: "
                f'give it all categories, {remedy}'
            )
        used = {category for category, images in dataset.cat_img_map.items() if images}
        unknown = ', '.join(map(str, sorted(used - set(dataset.cat_ids))))
        # A config that names a subset of the classes leaves out the others on purpose.
        if unknown and tuple(classes) == tuple(type(dataset).METAINFO['classes']):
            raise UsageError(
                f"'{dataset.ann_file}' has objects of the categories {unknown}, which are "
                f'no classes of {name}: correct their category_id, {remedy}'
            )
        if dataset.backend_args:
            return  # the images are not on this machine
        paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
        folders = {os.path.dirname(path) for path in paths}
        there = {os.path.join(folder, name) for folder in folders for name in os.listdir(folder)}
        missing = [path for path in paths if path not in there]
        if missing:
            raise UsageError(
                f"'{dataset.ann_file}' lists {len(missing)} images that are not there, such as "
                f"'{missing[0]}': add them, or take them out of the annotations"
            )


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """MMEngine's ``LoggerHook``; one process writes the file with the metrics of a test, not all of them."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the metrics, and write them to ``<timestamp>.json``."""
        if is_main_process():
            super().after_test_epoch(runner, metrics)


@HOOKS.register_module()
class MeanLossHook(Hook):
    """Log the mean of the losses over all processes.

    MMEngine logs those of the first process. The mean over n processes is what one process with n times
    the batch would log.
    """

    # Before RuntimeInfoHook, which records the losses.
    priority = 'HIGHEST'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Average the scalars in ``outputs`` in place."""
        world_size = get_world_size()
        if world_size == 1 or not outputs:
            return
        losses = {
            key: value.detach().float() for key, value in outputs.items() if isinstance(value, torch.Tensor)
        }
        all_reduce_dict(losses, op='sum')
        outputs.update({key: value / world_size for key, value in losses.items()})
