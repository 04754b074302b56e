"""Name for `--worker-extension-cls`: routers that route, and counts of the experts they touch.

The class itself is `validate/gpu/worker_hooks.py`, loaded by its place beside this folder, so that
the engine's interpreter needs nothing of moeplan installed.
"""

import importlib.util
import pathlib

_FILE = pathlib.Path(__file__).parent.parent / "gpu" / "worker_hooks.py"
_SPEC = importlib.util.spec_from_file_location("moeplan_worker_hooks", _FILE)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

RoutedWorker = _MODULE.RoutedWorker
