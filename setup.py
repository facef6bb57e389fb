import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmmeta/version.py').read_text())[1]

# What `mim` and mmmeta.utils.resources look for inside an installed package.
RESOURCES = ('configs', 'tools', 'model-index.yml')
# What only maintainers run, with the benchmarks of a checkout.
LEFT_OUT = ('__pycache__', 'gpu_report.py', 'model_zoo.py', 'zoo_coverage.py')


class BuildWithResources(build_py):
    """Put configs, tools and the model index into the package; an editable one has them beside it."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'mmmeta/.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in RESOURCES:
            if (HERE / name).is_dir():
                shutil.copytree(HERE / name, target / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
            else:
                shutil.copy(HERE / name, target / name)


# MMEngine and MMCV exist as official distributions and as a fork, mmcv and mmcv-lite as two builds: the base
# requires none by name, the extras do, and `import mmmeta` reports what is missing.
setup(
    name='mmmeta',
    version=VERSION,
    description='MetaFormer backbones for detection and segmentation with OpenMMLab',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['mmmeta', 'mmmeta.*']),
    package_data={'mmmeta.analysis': ['paper/*', 'counts.csv'], 'mmmeta.scaffold': ['templates/*']},
    cmdclass={'build_py': BuildWithResources},
    install_requires=[
        'torch>=2.4',
        'numpy',
        'pillow',
        'pyyaml',
        'matplotlib',
        'rich',
        'huggingface_hub',
        'safetensors',
    ],
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
        'cam': ['grad-cam'],
        'deploy': ['onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf'],
    },
)
