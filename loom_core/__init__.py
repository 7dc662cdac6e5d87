"""loom evaluates long-context language models: any benchmark, any server, any acceleration, one honest report.

This package is the thin core. It knows contracts, keys, the store and the pipeline; it knows no benchmark,
no model, no method, and imports neither torch nor (before it is used) numpy.
"""

__version__ = "0.1.0"

from loom_core import moved

moved.install()
