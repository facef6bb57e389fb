import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent

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


# All else is in pyproject.toml.
setup(cmdclass={'build_py': BuildWithResources})
