"""What is attention with alpha-entmax in place of softmax?  The output, the gradients, and both for packed sequences.

- `problem`: checked operands, which key each query sees, and the scores, a range of queries at a time.
- `forward`: the output, what is known of each row, and the scores themselves.
- `gradient`: the gradients for query, key, value, alpha and bias.
- `packed`: both for sequences that lie one after the other.

Imports point from the last to the first.
"""

from entmax_ref.attention.forward import AttentionAux, attention, attention_scores
from entmax_ref.attention.gradient import attention_vjp
from entmax_ref.attention.packed import attention_varlen, attention_varlen_vjp

__all__ = [
    "AttentionAux",
    "attention",
    "attention_scores",
    "attention_varlen",
    "attention_varlen_vjp",
    "attention_vjp",
]
