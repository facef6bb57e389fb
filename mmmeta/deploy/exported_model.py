"""An exported file in place of the model of a config, so that MMEngine's loops and metrics judge it."""

from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from mmmeta.registry import MODELS
from mmmeta.runtime.run import Network, Prediction, RuntimeProblem
from mmmeta.utils.errors import UsageError


@MODELS.register_module()
class ExportedModel(BaseModel):
    """What runs an exported file on the images of a test set, for ``Runner.test``.

    Attributes:
        network (Network): The file, opened.

    Args:
        file (str | None): What was exported. Defaults to None: ``network`` is set before it is used.
        engine (str | None): As of :class:`~mmmeta.runtime.run.Network`. Defaults to None.
        threads (int): As there. Defaults to 0.
        trusted (bool): Whether the file may execute code, as there. Defaults to False.
        data_preprocessor (dict | None): That of the config, which is not used. Defaults to None.

    Raises:
        UsageError: The file cannot be run.
    """

    network: Network

    def __init__(
        self,
        file: str | None = None,
        engine: str | None = None,
        threads: int = 0,
        trusted: bool = False,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        if file is None:
            return
        try:
            self.network = Network(file, engine, threads, trusted=trusted)
        except RuntimeProblem as error:
            raise UsageError(str(error)) from error

    def test_step(self, data: dict[str, Any]) -> list[BaseDataElement]:
        """Predict for a batch, reading the images as the runtime does, by their paths."""
        samples = data['data_samples']
        for sample, prediction in zip(
            samples, self.network.predict([sample.img_path for sample in samples]), strict=True
        ):
            _put(sample, prediction, self.network.description.task)
        return samples

    def forward(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None, mode: str = 'tensor'
    ) -> NoReturn:
        """Not there: a file has no training, and predicts from files of images."""
        raise NotImplementedError


def _put(sample: BaseDataElement, prediction: Prediction, task: str) -> None:
    """Put a prediction where the metrics of its package look for it."""
    if task == 'detection':
        found = dict(bboxes=prediction.boxes, scores=prediction.scores, labels=prediction.labels)
        if prediction.masks is not None:
            found['masks'] = prediction.masks
        sample.pred_instances = InstanceData(**{key: torch.from_numpy(value) for key, value in found.items()})
    elif task == 'segmentation':
        labels = torch.from_numpy(prediction.labels.astype(np.int64))
        sample.set_data(dict(pred_sem_seg=PixelData(data=labels[None])))
    else:
        scores = torch.from_numpy(prediction.scores)
        sample.set_pred_score(scores).set_pred_label(scores.argmax())
