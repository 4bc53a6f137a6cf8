"""Does importing and using the oracle touch NumPy and nothing else, and does it export what it promises?"""

import subprocess
import sys
from pathlib import Path

import entmax_ref

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy
before = set(sys.modules)

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "triton", "scipy", "mpmath", "matplotlib", "adasplash2"}:
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refuse())
import entmax_ref

probs = entmax_ref.entmax([[1.0, 0.0, -9.0]])
query = numpy.ones((1, 2, 3, 4))
out = entmax_ref.attention(query, query, query, is_causal=True)
gradients = entmax_ref.attention_vjp(query, query, query, query, alpha=1.75)
assert out.shape == query.shape == gradients[2].shape and probs[0, 2] == 0.0
allowed = set(sys.stdlib_module_names) | {"numpy", "entmax_ref"}
print(sorted(name for name in set(sys.modules) - before if name.split(".")[0] not in allowed))
"""


def test_import_and_use_load_numpy_alone(tmp_path):
    root = Path(entmax_ref.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_exported_name_exists_and_is_documented():
    assert sorted(entmax_ref.__all__) == entmax_ref.__all__
    for name in entmax_ref.__all__:
        assert getattr(entmax_ref, name).__doc__.strip()


def test_the_types_ship():
    assert (Path(entmax_ref.__file__).parent / "py.typed").is_file()
