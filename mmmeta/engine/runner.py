"""MMEngine's Runner with our checkpoints, loop, checks and records."""

import copy
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner as MMEngineRunner

from mmmeta.registry import RUNNERS
from mmmeta.utils.mmengine_private import lacks_checkpoint, set_checkpoint

from .console import shorten_console
from .prepare import prepare
from .resuming import find_last_checkpoint


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """MMEngine's ``Runner``, chosen by ``runner_type='mmmeta.Runner'``, which adds to a config what it lacks.

    - :class:`~mmmeta.engine.CheckpointHook`: checkpoints without code, complete or not there;
    - :class:`~mmmeta.engine.IterBasedTrainLoop` and :class:`~mmmeta.engine.EpochBasedTrainLoop`, in the place
      of MMEngine's: resuming without past batches, and with the same random numbers;
    - :class:`~mmmeta.engine.AgreementHook`: processes that do not begin with the same end;
    - :class:`~mmmeta.engine.StopHook`: a checkpoint at SIGTERM, SIGINT and SIGUSR1;
    - :class:`~mmmeta.engine.DivergenceHook`: a run whose losses are not finite any more ends;
    - :class:`~mmmeta.engine.MeanLossHook`: losses are means over all processes;
    - :class:`~mmmeta.engine.LoggerHook`: one process writes the metrics of a test;
    - :class:`~mmmeta.engine.CompleteWeightsHook`: a tested checkpoint is the whole model's, one that training
      starts from has the whole backbone, or it is refused;
    - :class:`~mmmeta.engine.CocoCheckHook`, for detectors: annotations and images are checked first;
    - :class:`~mmmeta.engine.NothingDetectedHook`, for detectors: AP is 0 where nothing is detected;
    - :class:`~mmmeta.engine.RunRecordHook`: a record of the run beside its logs.

    Hooks and loops of other types are left as they are. A line of the log lists what was added. With
    ``console='short'`` in the config, as our tools set it without ``--verbose``, config, environment, hooks
    and settings of parameters are in the log file alone.
    """

    @classmethod
    def from_cfg(cls, cfg: Config | dict) -> 'Runner':
        """Build a runner from a config, which is not changed.

        Args:
            cfg (Config | dict): As MMEngine's ``Runner.from_cfg`` takes it.
        """
        cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else Config(copy.deepcopy(dict(cfg)))
        added = prepare(cfg)
        runner = super().from_cfg(cfg)
        if added:
            runner.logger.info(f'added by mmmeta.Runner: {", ".join(added)}')
        return runner

    def load_or_resume(self) -> None:
        """Load or resume as MMEngine does, but not from what ``last_checkpoint`` does not name."""
        if lacks_checkpoint(self):
            out_dirs = (hook.out_dir for hook in self.hooks if isinstance(hook, CheckpointHook))
            set_checkpoint(self, find_last_checkpoint(self.work_dir, next(out_dirs, None)))
        super().load_or_resume()

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build as MMEngine does; with ``console='short'`` in the config the screen has less than files."""
        logger = super().build_logger(*args, **kwargs)
        if self.cfg.get('console') == 'short':
            shorten_console(logger)
        return logger

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build as MMEngine does, with parameter groups as dicts: PyTorch compiles no ``ConfigDict``."""
        built = super().build_optim_wrapper(optim_wrapper)
        for wrapper in built.values() if isinstance(built, OptimWrapperDict) else [built]:
            wrapper.optimizer.param_groups = [dict(group) for group in wrapper.optimizer.param_groups]
        return built
