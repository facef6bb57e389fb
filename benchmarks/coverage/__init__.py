"""A MetaFormer in every config of the OpenMMLab packages, trained and tested on generated data."""
