import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmmeta/version.py').read_text())[1]

# MMEngine and MMCV exist as official distributions and as a fork, mmcv and mmcv-lite as two builds: the base
# requires none by name, the extras do, and `import mmmeta` tells what is missing.
setup(
    name='mmmeta',
    version=VERSION,
    description='MetaFormer backbones for detection and segmentation with OpenMMLab',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['mmmeta', 'mmmeta.*']),
    package_data={'mmmeta.analysis': ['paper/*']},
    install_requires=['torch>=2.1', 'numpy', 'pillow', 'huggingface_hub', 'safetensors'],
    extras_require={
        'official': [
            'mmengine>=0.10.4,<0.11',
            'mmcv>=2.0.0,<2.2.0',
            'mmdet>=3.3.0,<3.4',
            'mmsegmentation>=1.2.0,<1.3',
            'mmpretrain>=1.2.0,<1.3',
            'setuptools<81',
            'ftfy',
            'regex',
            'torchvision',
        ],
        'onedl': [
            'onedl-mmengine',
            'onedl-mmcv',
            'onedl-mmdetection',
            'onedl-mmsegmentation',
            'onedl-mmpretrain',
            'ftfy',
            'regex',
            'torchvision',
        ],
        'timm': ['timm>=1.0.9'],
    },
)
