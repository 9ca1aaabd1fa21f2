# %% [markdown]
# # Exercises 02: gradient fields
# Two bowls, L(x) = ½ (x − c)ᵀ H (x − c), with a symmetric stiffness matrix `H` of shape `[n, n]`
# (the Hessian) and a center `c` of shape `[n]`.

# %%
import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 2.1 The field of a bowl
# *Warm-up · 5 minutes · 1 point*
#
# The field that gradient descent follows on one bowl.


# %%
def gradient_field(H, c, x):
    """The gradient field f = -grad L of a bowl.

    H: stiffness, [n, n]; c: center, [n]; x: point, [n]
    returns: velocity, [n]
    """
    ### BEGIN SOLUTION
    return -H @ (x - c)
    ### END SOLUTION


# %%
ex.draw("2.1", gradient_field)

# %%
ex.check("2.1", gradient_field)

# %%
ex.hint("2.1")
# ex.solution("2.1")

# %% [markdown]
# ## 2.2 The bracket of two bowls
# *Exercise · 10 minutes · 2 points*
#
# [f_A, f_B] = H_B g_A − H_A g_B: one matrix product per source, no Jacobian to differentiate.


# %%
def bracket(H_a, c_a, H_b, c_b, x):
    """Lie bracket of the gradient fields of bowl A and bowl B.

    H_a, H_b: [n, n]; c_a, c_b: [n]; x: [n]
    returns: [n]
    """
    ### BEGIN SOLUTION
    g_a, g_b = H_a @ (x - c_a), H_b @ (x - c_b)
    return H_b @ g_a - H_a @ g_b
    ### END SOLUTION


# %%
ex.draw("2.2", bracket)

# %%
ex.check("2.2", bracket)

# %%
ex.hint("2.2")
# ex.solution("2.2")

# %% [markdown]
# ## 2.3 How far apart the ends lie
# *Exercise · 10 minutes · 2 points*
#
# One step of size `lr` on A, then one on B; or the other way round. For bowls the bracket gives the
# difference of the ends exactly. Find the formula, take no step.


# %%
def end_difference(H_a, c_a, H_b, c_b, x, lr):
    """End of "A, then B" minus end of "B, then A", one SGD step each.

    H_a, H_b: [n, n]; c_a, c_b, x: [n]; lr: step size
    returns: [n]
    """
    ### BEGIN SOLUTION
    g_a, g_b = H_a @ (x - c_a), H_b @ (x - c_b)
    return lr**2 * (H_b @ g_a - H_a @ g_b)
    ### END SOLUTION


# %%
ex.draw("2.3", end_difference)

# %%
ex.check("2.3", end_difference)

# %%
ex.hint("2.3")
# ex.solution("2.3")

# %% [markdown]
# ## 2.4 When order never matters
# *Challenge · 20 minutes · 3 points*
#
# For which pairs of bowls is the bracket zero at **every** point? It takes two conditions. One of
# them surprises most people.


# %%
def never_matters(H_a, c_a, H_b, c_b):
    """Whether the order of the two bowls makes no difference, wherever one starts.

    H_a, H_b: [n, n]; c_a, c_b: [n]
    returns: True or False
    """
    ### BEGIN SOLUTION
    product = H_a @ H_b
    commute = torch.allclose(product, H_b @ H_a)
    apart = product @ (c_b - c_a)
    return commute and torch.allclose(apart, torch.zeros_like(apart), atol=1e-9)
    ### END SOLUTION


# %%
ex.check("2.4", never_matters)

# %%
ex.hint("2.4")
# ex.solution("2.4")
