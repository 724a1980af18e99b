"""Lets `import torchvision` work where its compiled operators do not load.

There is no build of them for every torch that the tests run with, and without them the import fails,
and with it those of transformers' processors and of peft. All that they need of it is plain torch.
scripts/setup.sh installs this file into the development environment, where it runs at the start of
every process and therefore imports next to nothing; tests/oracle.py runs it for environments that
were set up otherwise.
"""

import sys
from importlib.machinery import PathFinder


class _Loader:
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        import torch

        register_fake = torch.library.register_fake

        def register_known(op, *args, **kwargs):
            space, _, name = op.partition("::") if isinstance(op, str) else ("", "", "")
            if space == "torchvision" and not hasattr(torch.ops.torchvision, name):
                return lambda function: function
            return register_fake(op, *args, **kwargs)

        torch.library.register_fake = register_known
        try:
            self.loader.exec_module(module)
        finally:
            torch.library.register_fake = register_fake


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install() -> None:
    """From now on; once per process is enough, and more does no harm."""
    if not any(getattr(finder, "__name__", "") == _Finder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder)


install()
