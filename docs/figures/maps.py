"""How do softmax, entmax 1.5 and sparsemax spread one row of scores?"""

import matplotlib.pyplot as plt
import numpy as np

import entmax_ref

scores = np.sort(np.random.default_rng(11).normal(size=14))[::-1]
softmax = np.exp(scores - scores.max())
maps = [
    ("softmax (alpha to 1)", softmax / softmax.sum(), "#7f7f7f"),
    ("alpha = 1.5", entmax_ref.entmax(scores, alpha=1.5), "#1f77b4"),
    ("alpha = 2 (sparsemax)", entmax_ref.entmax(scores, alpha=2.0), "#d95f02"),
]

figure, axes = plt.subplots()
places = np.arange(scores.size)
for shift, (name, probs, colour) in enumerate(maps):
    size = int((probs > 0).sum())
    axes.bar(
        places + 0.27 * (shift - 1),
        probs,
        0.27,
        color=colour,
        label=f"{name}: {size} of {scores.size} positive",
    )
axes.set_xticks(places, [f"{score:.1f}" for score in scores])
axes.set(xlabel="score of the key", ylabel="probability")
axes.grid(axis="x", visible=False)
axes.legend()
