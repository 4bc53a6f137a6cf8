"""How many keys does a row of Gaussian scores keep?"""

import matplotlib.pyplot as plt
import numpy as np

import entmax_ref

lengths = 2 ** np.arange(2, 18)
rng = np.random.default_rng(3)
rows = {n: rng.normal(size=(max(2, min(200, 2**16 // n)), n)) for n in lengths}
figure, axes = plt.subplots()
axes.plot(lengths, lengths, color="#7f7f7f", linestyle="--", label="every key (softmax)")
for alpha, colour in ((1.1, "#9ecae1"), (1.25, "#6baed6"), (1.5, "#1f77b4"), (2.0, "#d95f02")):
    sizes = [entmax_ref.support(rows[n], alpha=alpha).sum(axis=-1).mean() for n in lengths]
    axes.plot(lengths, sizes, marker=".", color=colour, label=f"alpha = {alpha:g}")
axes.set(xscale="log", yscale="log", xlabel="keys in the row", ylabel="keys in the support (mean)", ylim=(1, 3e4))
axes.legend()
