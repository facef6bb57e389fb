"""Parts of the pipelines of data sets."""

from collections.abc import Iterable, Sequence
from typing import Any

# Transforms that load annotation maps.
ANNOTATION_LOADERS = ('LoadAnnotations', 'LoadMappedLabels')


def without_annotations(pipeline: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline for images that nobody has annotated."""
    return [step for step in pipeline if step['type'].rpartition('.')[2] not in ANNOTATION_LOADERS]


def reads_unchanged(steps: Iterable[object]) -> bool:
    """Whether images are read as they are stored, the first channel first, instead of as 8-bit BGR.

    Args:
        steps (Iterable[object]): Steps of a pipeline, as dicts or built.
    """
    names = (step['type'] if isinstance(step, dict) else type(step).__name__ for step in steps)
    return any(name.rpartition('.')[2] == 'LoadUnchangedImage' for name in names)
