"""How does the probability of one of two keys depend on the difference of their scores?"""

import matplotlib.pyplot as plt
import numpy as np

import entmax_ref

difference = np.linspace(-4, 4, 801)
scores = np.stack([difference, np.zeros_like(difference)], axis=-1)
figure, axes = plt.subplots()
axes.plot(difference, 1 / (1 + np.exp(-difference)), color="#7f7f7f", linestyle="--", label="softmax (alpha = 1)")
for alpha, colour in ((1.25, "#9ecae1"), (1.5, "#1f77b4"), (2.0, "#d95f02"), (4.0, "#7b3294")):
    axes.plot(difference, entmax_ref.entmax(scores, alpha=alpha)[:, 0], color=colour, label=f"alpha = {alpha:g}")
axes.set(xlabel="score of the first key minus score of the second", ylabel="probability of the first key")
axes.legend()
