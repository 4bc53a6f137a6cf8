"""Where is the threshold of a row, what brackets it, and where does a Newton step on the norm land?"""

import matplotlib.pyplot as plt
import numpy as np

import entmax_ref

alpha = 1.5
scores = np.random.default_rng(5).normal(size=40)
z = (alpha - 1) * scores
row_max, tau = z.max(), float(entmax_ref.threshold(scores, alpha))


def sums(t):
    gap = np.maximum(z - t, 0)
    return (gap**2).sum(), gap.sum()


figure, axes = plt.subplots()
grid = np.linspace(row_max - 1.1, row_max + 0.03, 400)
axes.plot(grid, [np.sqrt(sums(t)[0]) for t in grid], color="#1f77b4", label="square root of mass(t)")
axes.plot(grid, [sums(t)[0] for t in grid], color="#1f77b4", linestyle=":", label="mass(t)")
axes.axhline(1, color="0.5", linewidth=0.8)
low, high = row_max - 1, row_max - z.size ** (1 - alpha)
axes.axvspan(low, high, color="#1f77b4", alpha=0.08, label="row_max - 1 to row_max - n ** (1 - alpha)")
edges = row_max - 0.125 * np.ceil((row_max - z) / 0.125)  # eight bins, every score lowered to the edge of its bin
lowered = float(entmax_ref.threshold(edges / (alpha - 1), alpha))
axes.axvspan(lowered, lowered + 0.125, color="#d95f02", alpha=0.25, label="from a histogram of eight bins")
for start in (row_max - 0.95, row_max - 0.12):
    mass, slope = sums(start)
    landing = start + (mass - np.sqrt(mass)) / slope
    axes.plot([start, landing], [np.sqrt(mass), 1], color="#2ca02c", linewidth=1.2)
    axes.plot(start, np.sqrt(mass), "o", color="#2ca02c", markersize=4)
    axes.plot(landing, 1, "<", color="#2ca02c", markersize=6)
axes.plot([], [], "-o", color="#2ca02c", markersize=4, label="Newton steps on the root, from either side")
axes.plot(tau, 1, "*", color="black", markersize=11, label="tau")
axes.set(xlabel="t", ylim=(0, 4), xlim=(grid[0], grid[-1]))
axes.legend(fontsize=8)
