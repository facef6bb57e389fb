"""Parts of the pipelines of data sets."""

from collections.abc import Sequence

# Transforms that load annotation maps.
ANNOTATION_LOADERS = ('LoadAnnotations', 'LoadMappedLabels')


def without_annotations(pipeline: Sequence[dict]) -> list[dict]:
    """A pipeline for images that nobody has annotated."""
    return [step for step in pipeline if step['type'].rpartition('.')[2] not in ANNOTATION_LOADERS]
