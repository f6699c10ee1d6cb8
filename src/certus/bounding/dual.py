"""The dual network of Wong and Kolter (2018), which is CROWN's walk with Fast-Lin's slopes."""

from certus.bounding.crown import Crown
from certus.bounding.fixed_slopes import FAST_LIN


def wong_kolter(memory: int | None = None) -> Crown:
    """Bounds of the dual network J(nu) (Wong and Kolter 2018, theorem 1 and algorithm 1).

    The paper relaxes each ReLU on [l, u] to the triangle and picks the dual variables
    alpha = u / (u - l), which makes the dual network's activation the matrix D with entries 0, 1 and
    u / (u - l). Its backward pass nu_i = W_i' D nu_{i+1} is the backward walk on lines of that slope;
    the term sum l [nu]_+ is the offset -u l / (u - l) of the upper line, taken where the coefficient is
    negative, and the rest is concretised with the dual norm. So this is Crown with the slopes of
    Fast-Lin, and every specification costs one pass. Inner bounds come from the same procedure, as
    in algorithm 1, met with interval arithmetic: they are never looser than the paper's, and equal up
    to the first hidden layer. Other operations than ReLU use Certus' own lines.
    """
    return Crown(slopes=FAST_LIN, memory=memory)
