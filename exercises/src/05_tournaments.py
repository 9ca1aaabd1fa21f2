# %% [markdown]
# # Exercises 05: tournaments
# `M[i, j]` is the predicted loss of "i, then j" minus that of "j, then i". Negative: `i` goes
# first.

# %%
import itertools

import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 5.1 All pairs at once
# *Warm-up · 5 minutes · 1 point*
#
# N gradients g_i and N products v_i = H_i g_E give all N² scores: σ_ij = ⟨v_j, g_i⟩ − ⟨v_i, g_j⟩.


# %%
def effect_matrix(g, v):
    """Scores of all pairs.

    g: gradients, [N, P]; v: products, [N, P]
    returns: [N, N]
    """
    ### BEGIN SOLUTION
    products = g @ v.T
    return products - products.T
    ### END SOLUTION


# %%
ex.draw("5.1", effect_matrix)

# %%
ex.check("5.1", effect_matrix)

# %%
ex.hint("5.1")
# ex.solution("5.1")

# %% [markdown]
# ## 5.2 Borda
# *Warm-up · 5 minutes · 1 point*
#
# Each source's row sum says how much it gains by going before the others.


# %%
def borda(matrix):
    """Borda scores and order.

    matrix: [N, N]
    returns: row sums, [N], and the sources' numbers, the one trained first in front (a list)
    """
    ### BEGIN SOLUTION
    scores = matrix.sum(1)
    return scores, torch.argsort(scores).tolist()
    ### END SOLUTION


# %%
ex.draw("5.2", borda)

# %%
ex.check("5.2", borda)

# %%
ex.hint("5.2")
# ex.solution("5.2")

# %% [markdown]
# ## 5.3 The best of all orders
# *Exercise · 15 minutes · 2 points*
#
# An order is worth the sum of `M[i, j]` over all pairs with `i` somewhere before `j`. Try them all.


# %%
def best_order(matrix):
    """The order with the lowest value, by trying all N!.

    matrix: [N, N], N at most 6
    returns: list of the sources' numbers, the one trained first in front
    """

    ### BEGIN SOLUTION
    def value(order):
        return sum(float(matrix[i, j]) for i, j in itertools.combinations(order, 2))

    return list(min(itertools.permutations(range(len(matrix))), key=value))
    ### END SOLUTION


# %%
ex.draw("5.3", best_order)

# %%
ex.check("5.3", best_order)

# %%
ex.hint("5.3")
# ex.solution("5.3")

# %% [markdown]
# ## 5.4 Rock, paper, scissors
# *Exercise · 15 minutes · 2 points*
#
# Find three sources that each want to go before the next, round in a circle. No order pleases them.


# %%
def find_cycle(matrix):
    """A cycle of three sources.

    matrix: [N, N]
    returns: (i, j, k) with i before j, j before k and k before i all preferred, or None
    """
    ### BEGIN SOLUTION
    for i, j, k in itertools.permutations(range(len(matrix)), 3):
        if matrix[i, j] < 0 and matrix[j, k] < 0 and matrix[k, i] < 0:
            return i, j, k
    return None
    ### END SOLUTION


# %%
ex.draw("5.4", find_cycle)

# %%
ex.check("5.4", find_cycle)

# %%
ex.hint("5.4")
# ex.solution("5.4")

# %% [markdown]
# ## 5.5 The best order of ten
# *An afternoon · 120 minutes · 4 points*
#
# Ten sources have 3,628,800 orders but only 1,024 subsets. Find the best order without trying all
# orders: remember the best value of each subset. Plain Python lists, `matrix[i][j]`.


# %%
def best_order_of_many(matrix):
    """The order with the lowest value, in about N² 2^N steps.

    matrix: list of N lists of N numbers
    returns: list of the sources' numbers, the one trained first in front
    """
    ### BEGIN SOLUTION
    n = len(matrix)
    best, last = {0: 0.0}, {}
    for group in range(1, 2**n):
        inside = [i for i in range(n) if group >> i & 1]
        values = {}
        for j in inside:
            values[j] = best[group - (1 << j)] + sum(matrix[i][j] for i in inside if i != j)
        last[group] = min(values, key=values.get)
        best[group] = values[last[group]]
    order, group = [], 2**n - 1
    while group:
        order.append(last[group])
        group -= 1 << last[group]
    return order[::-1]
    ### END SOLUTION


# %%
ex.check("5.5", best_order_of_many)

# %%
ex.hint("5.5")
# ex.solution("5.5")
