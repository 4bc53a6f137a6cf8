"""How fast does each solver find the threshold of a peaked row, and of a flat one?"""

import matplotlib.pyplot as plt
import numpy as np

from entmax_ref.solvers import solve

rng = np.random.default_rng(7)
normal = rng.normal(size=16384)
rows = {"Gaussian scores": 0.5 * normal, "nearly equal scores": 0.5 * 0.01 * normal}
colours = {
    "bisection": "#7f7f7f",
    "newton": "#9ecae1",
    "newton_norm": "#1f77b4",
    "halley_bisection": "#fdae6b",
    "histogram_halley": "#d95f02",
    "mixture": "#000000",
}
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(7.6, 4.2))
for place, (title, z) in zip(axes, rows.items(), strict=True):
    for name, colour in colours.items():
        residual = np.maximum(solve(name, z, 1.5, passes=12).residual, 1e-16)
        place.plot(residual, marker=".", color=colour, label=name)
    place.set(yscale="log", xlabel="passes", title=title, ylim=(3e-17, 1e5))
axes[0].set_ylabel("abs(mass - 1)")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
