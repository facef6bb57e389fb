"""Parts of the pipelines of data sets."""

from collections.abc import Iterable, Sequence

# Transforms that load annotation maps.
ANNOTATION_LOADERS = ('LoadAnnotations', 'LoadMappedLabels')


def without_annotations(pipeline: Sequence[dict]) -> list[dict]:
    """A pipeline for images that nobody has annotated."""
    return [step for step in pipeline if step['type'].rpartition('.')[2] not in ANNOTATION_LOADERS]


def reads_unchanged(steps: Iterable) -> bool:
    """Whether images are read as they are stored, the first channel first, instead of as 8-bit BGR.

    Args:
        steps (Iterable): Steps of a pipeline, as dicts or built.
    """
    names = (step['type'] if isinstance(step, dict) else type(step).__name__ for step in steps)
    return any(name.rpartition('.')[2] == 'LoadUnchangedImage' for name in names)
