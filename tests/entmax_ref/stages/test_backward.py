"""Do the gradients of the scores of a row sum to zero, and vanish outside the support?"""

from lemmas import lemma
from specified import ULP, attention_problem, each_alpha, exact_tau

from entmax_ref import stages


@lemma("jacobian_rows_zero")
@each_alpha
def test_score_gradients_of_a_row_sum_to_zero(alpha):
    _, _, value, d_out, _, _, z = attention_problem(alpha, seed=2)
    tau = exact_tau(z, alpha)
    delta = stages.delta(z, tau, value, d_out, alpha)
    gradient = stages.score_gradient(z, tau, value, d_out, delta, alpha)
    assert (abs(gradient.sum(axis=-1)) <= 64 * ULP * (abs(gradient).sum(axis=-1) + 1.0)).all()
    assert not gradient[stages.gaps(z, tau) == 0.0].any()
