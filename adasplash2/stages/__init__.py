"""In which order do the kernels run, and what does each get?

A stage is a `starts.Call`: a kernel, its grid and its arguments.  The same calls run on a GPU, run in the interpreter,
and are compiled ahead of time (over tensors without storage) by ``aot``.
"""

from .backward import backward_calls
from .forward import forward_calls

__all__ = ["backward_calls", "forward_calls"]
