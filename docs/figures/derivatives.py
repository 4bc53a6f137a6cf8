"""How do probabilities answer to a score, and to alpha?"""

import matplotlib.pyplot as plt
import numpy as np

import entmax_ref

figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.8))
difference = np.linspace(-3, 3, 1201)
scores = np.stack([difference, np.zeros_like(difference)], axis=-1)
softmax = 1 / (1 + np.exp(-difference))
left.plot(difference, softmax * (1 - softmax), color="#7f7f7f", linestyle="--", label="softmax")
direction = np.broadcast_to([1.0, 0.0], scores.shape)
for alpha, colour in ((1.25, "#9ecae1"), (1.5, "#1f77b4"), (2.0, "#d95f02"), (2.5, "#7b3294")):
    slope = entmax_ref.entmax_vjp(scores, direction, alpha)[:, 0]
    left.plot(difference, slope, color=colour, label=f"alpha = {alpha:g}")
left.set(xlabel="score difference of two keys", ylabel="d probability / d score", ylim=(-0.02, 1.35))
left.legend(fontsize=8, ncols=2, loc="upper center")

row = np.array([1.2, 1.0, 0.4, -0.3, -2.0])
alphas = np.linspace(1.02, 2.5, 300)
moves = np.array([entmax_ref.entmax_alpha_grad(row, alpha) for alpha in alphas])
for key, colour in enumerate(("#1f77b4", "#6baed6", "#d95f02", "#7b3294", "#7f7f7f")):
    right.plot(alphas, moves[:, key], color=colour, label=f"score {row[key]:g}")
right.set(xlabel="alpha", ylabel="d probability / d alpha")
right.legend(fontsize=8)
