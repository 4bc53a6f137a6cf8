"""On which inputs does ``verify`` run?  Real input first, then synthetic workloads, then rows made to be hard."""

from __future__ import annotations

import dataclasses

import torch

from adasplash2.workloads import Workload, captured, captured_names, workload

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclasses.dataclass(frozen=True)
class Case:
    """One attention call to be judged.

    Attributes
    ----------
    name : str
        A name of `adasplash2.workloads`.
    dtype : str
        Key of ``DTYPES``.
    heads, kv_heads, n_queries, n_keys, head_dim : int
        Sizes; batch is 1, except where ``batch`` says otherwise.
    is_causal : bool
    alpha : float
    seed : int
    is_strided : bool
        Operands that lie in memory as (batch, length, heads, head_dim), as projections leave them.
    stages : bool
        Also run and judge every stage by itself, and demand the same bits from this second run.
    picture : bool
        Keep the block mask and the support of one head for the report.
    """

    name: str
    dtype: str
    heads: int
    kv_heads: int
    n_queries: int
    n_keys: int
    head_dim: int
    is_causal: bool
    alpha: float = 1.5
    seed: int = 0
    batch: int = 1
    is_strided: bool = False
    stages: bool = False
    picture: bool = False

    @property
    def shape(self) -> str:
        """Heads, lengths, head_dim and mask in a few characters: ``4/2 100x100x64 c``."""
        heads = str(self.heads) if self.heads == self.kv_heads else f"{self.heads}/{self.kv_heads}"
        heads = heads if self.batch == 1 else f"{self.batch}*{heads}"
        mask = ("c" if self.is_causal else "f") + ("" if self.alpha == 1.5 else "2") + "t" * self.is_strided
        return f"{heads} {self.n_queries}x{self.n_keys}x{self.head_dim} {mask}"

    def load(self, device: torch.device | str) -> Workload:
        """Return the operands; the same bits on every device."""
        dtype = DTYPES[self.dtype]
        if self.name in captured_names():
            load = captured(self.name, length=self.n_queries, dtype=dtype, device=device, is_causal=self.is_causal)
            heads = slice(0, self.heads)
            parts = [part[:, heads] for part in (load.query, load.key, load.value)]
        else:
            load = workload(
                self.name,
                batch=self.batch,
                heads=self.heads,
                kv_heads=self.kv_heads,
                n_queries=self.n_queries,
                n_keys=self.n_keys,
                head_dim=self.head_dim,
                dtype=dtype,
                device=device,
                seed=self.seed,
                is_causal=self.is_causal,
                segment=max(16, self.n_keys // 8),
            )
            parts = [load.query, load.key, load.value]
        if self.is_strided:
            parts = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in parts]
        return dataclasses.replace(load, query=parts[0], key=parts[1], value=parts[2])


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """A case for both kinds of machine: what differs is the size, and in which dtypes the interpreter has time."""

    name: str
    small: tuple[int, int, int, int, int]  # heads, kv_heads, n_queries, n_keys, head_dim
    large: tuple[int, int, int, int, int]
    dtypes: str = "bf16 fp32"
    is_causal: bool = True
    alpha: float = 1.5
    batch: int = 1
    is_strided: bool = False
    stages: bool = False
    picture: bool = False
    quick: bool = False


_SMALL = (2, 2, 150, 150, 64)
_HARD = (1, 1, 140, 140, 64)
_LARGE = (4, 4, 1000, 1000, 64)

# Few distinct head_dims, since a GPU compiles every stage anew for each.
_RECIPES = (
    # Real queries, keys and values; the whole text of each in at least one dtype.
    _Recipe(
        "gettysburg_layer4", (1, 1, 193, 193, 32), (1, 1, 193, 193, 32), "bf16 fp16 fp32", False,
        stages=True, quick=True,
    ),
    _Recipe("gettysburg_layer4", (1, 1, 193, 193, 32), (1, 1, 193, 193, 32), "fp32", alpha=2.0, quick=True),
    _Recipe("declaration_layer0", (2, 2, 512, 512, 32), (2, 2, 512, 512, 32), "bf16", False),
    _Recipe("declaration_layer0", (2, 2, 256, 256, 32), (2, 2, 512, 512, 32), "fp32"),
    _Recipe("declaration_layer3", (2, 2, 320, 320, 32), (2, 2, 512, 512, 32), "fp16", False, picture=True),
    _Recipe("declaration_layer3", (2, 2, 200, 200, 32), (2, 2, 512, 512, 32), "bf16 fp32", stages=True),
    _Recipe("declaration_layer5", (1, 1, 512, 512, 32), (1, 1, 512, 512, 32), "bf16"),
    _Recipe("declaration_layer5", (1, 1, 256, 256, 32), (1, 1, 512, 512, 32), "fp32", False, is_strided=True),
    # Synthetic workloads: structure, shapes, grouped heads, lengths that differ, both alphas.
    _Recipe("gauss1", _SMALL, (4, 4, 2048, 2048, 64), "bf16 fp16 fp32", stages=True, quick=True),
    _Recipe("gauss4", _SMALL, (4, 4, 2048, 2048, 64), "bf16 fp32"),
    _Recipe("gauss1", (1, 1, 130, 130, 128), (2, 2, 1000, 1000, 128), "bf16 fp32", stages=True),
    _Recipe("gauss1", (2, 1, 70, 190, 40), (4, 2, 700, 1900, 40), "fp16 fp32", False, stages=True, quick=True),
    _Recipe("gauss1", (2, 2, 70, 190, 64), (4, 4, 500, 1500, 64), "bf16"),
    _Recipe("gauss1", (1, 1, 1, 200, 64), (4, 4, 1, 2000, 64), "bf16"),
    _Recipe("gauss1", _SMALL, _LARGE, "bf16 fp32", alpha=2.0, stages=True, quick=True),
    _Recipe(
        "topic16", (1, 1, 320, 320, 64), (4, 4, 4096, 4096, 64), "bf16 fp16",
        stages=True, picture=True, quick=True,
    ),
    _Recipe("topic16", (4, 2, 100, 100, 64), (4, 2, 500, 500, 64), "bf16 fp32", batch=2, is_strided=True),
    _Recipe("topic16", (1, 1, 200, 200, 128), (2, 2, 2048, 2048, 128), "bf16"),
    _Recipe("topic16", _SMALL, _LARGE, "fp16", alpha=2.0),
    _Recipe("sink", (1, 1, 200, 200, 64), _LARGE, "bf16 fp32", stages=True),
    # Rows made to be hard.
    _Recipe("equal", _HARD, _LARGE, "bf16 fp32", stages=True, quick=True),
    _Recipe("nearly_equal", _HARD, _LARGE, "bf16 fp32"),
    _Recipe("ties", _HARD, _LARGE, "fp16 fp32", stages=True),
    _Recipe("clusters", _HARD, _LARGE, "bf16 fp32"),
    _Recipe("spike", _HARD, _LARGE, "bf16 fp32", stages=True),
    _Recipe("offset", _HARD, _LARGE, "bf16 fp32", stages=True, quick=True),
    _Recipe("large_negative", _HARD, _LARGE, "fp16 fp32"),
    _Recipe("no_key", (1, 1, 150, 90, 64), (4, 4, 1000, 600, 64), "bf16 fp32", stages=True, quick=True),
    _Recipe("nan_query", _SMALL, _LARGE, "fp32"),
    _Recipe("nan_key", _SMALL, _LARGE, "bf16"),
    _Recipe("nan", _SMALL, _LARGE, "fp16 fp32", stages=True, quick=True),
    _Recipe("inf", _HARD, _LARGE, "bf16 fp32", stages=True),
    _Recipe("minus_inf", _HARD, _LARGE, "bf16 fp32", stages=True),
)  # fmt: skip


def case_names() -> tuple[str, ...]:
    """Return the names that ``--case`` takes, in the order of the table."""
    return tuple(dict.fromkeys(recipe.name for recipe in _RECIPES))


def choose_cases(
    *, interpreted: bool, quick: bool = False, dtypes: tuple[str, ...] = (), names: tuple[str, ...] = (), seed: int = 0
) -> list[Case]:
    """Return the cases to run.

    Parameters
    ----------
    interpreted : bool
        Small sizes, and each case in the dtypes that the interpreter has time for; otherwise every case in every dtype.
    quick : bool
        About a quarter of them; a name asked for is kept whatever it says.
    dtypes : tuple of str
        Only these, and each case in all of them.  Empty: as above.
    names : tuple of str
        Only these.  Empty: all.
    seed : int

    Returns
    -------
    list of Case
    """
    cases = []
    for index, recipe in enumerate(_RECIPES):
        if names and recipe.name not in names:
            continue
        if quick and not recipe.quick and not (names and not _has_quick(recipe.name)):
            continue
        heads, kv_heads, n_queries, n_keys, head_dim = recipe.small if interpreted else recipe.large
        listed = recipe.dtypes.split()
        chosen = dtypes or tuple(DTYPES)
        if interpreted and not dtypes:
            chosen = (listed[index % len(listed)],) if quick else tuple(listed)
        cases += [
            Case(
                recipe.name,
                dtype,
                heads,
                kv_heads,
                n_queries,
                n_keys,
                head_dim,
                recipe.is_causal,
                recipe.alpha,
                seed,
                recipe.batch,
                recipe.is_strided,
                # Twice the time in the interpreter, so there it is for one dtype of each.
                recipe.stages and (not interpreted or dtype == chosen[index % len(chosen)]),
                recipe.picture and dtype == chosen[0],
            )
            for dtype in chosen
        ]
    return cases


def _has_quick(name: str) -> bool:
    return any(recipe.quick for recipe in _RECIPES if recipe.name == name)
