# %% [markdown]
# # Exercises 03: curvature without matrices
# A Hessian of P parameters has P² entries; its product with one vector costs two or three
# gradients. `gradient(theta)` and `loss(theta)` are functions of a vector of shape `[P]`.

# %%
import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 3.1 Two gradients
# *Warm-up · 5 minutes · 1 point*
#
# The product Hv by a central difference of the gradient.


# %%
def hvp_difference(gradient, theta, v, eps):
    """Hv by central difference.

    gradient: theta [P] -> [P]; theta, v: [P]; eps: step
    returns: [P]
    """
    ### BEGIN SOLUTION
    return (gradient(theta + eps * v) - gradient(theta - eps * v)) / (2 * eps)
    ### END SOLUTION


# %%
ex.draw("3.1", hvp_difference)

# %%
ex.check("3.1", hvp_difference)

# %%
ex.hint("3.1")
# ex.solution("3.1")

# %% [markdown]
# ## 3.2 Double backward
# *Exercise · 15 minutes · 2 points*
#
# The exact product: differentiate the gradient along v. The result must not drag its graph along.


# %%
def hvp_exact(loss, theta, v):
    """Hv by differentiating twice.

    loss: theta [P] -> scalar tensor; theta, v: [P]
    returns: [P], without graph
    """
    ### BEGIN SOLUTION
    theta = theta.detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    (hv,) = torch.autograd.grad(g @ v, theta)
    return hv.detach()
    ### END SOLUTION


# %%
ex.check("3.2", hvp_exact)

# %%
ex.hint("3.2")
# ex.solution("3.2")

# %% [markdown]
# ## 3.3 Choose ε without knowing the truth
# *Challenge · 25 minutes · 3 points*
#
# In float32 a small ε drowns in rounding and a large one bends away. Choose from the candidates by
# comparing products with each other only. It must work for long and for short `v`.


# %%
def choose_eps(gradient, theta, v, candidates):
    """A good step of the central difference, without exact products.

    gradient: theta [P] -> [P], float32; theta, v: [P]
    candidates: list of numbers, ascending
    returns: one of the candidates
    """

    ### BEGIN SOLUTION
    def product(eps):
        return (gradient(theta + eps * v) - gradient(theta - eps * v)) / (2 * eps)

    return min(candidates, key=lambda eps: float((product(eps) - product(2 * eps)).norm()))
    ### END SOLUTION


# %%
ex.draw("3.3", choose_eps)

# %%
ex.check("3.3", choose_eps)

# %%
ex.hint("3.3")
# ex.solution("3.3")

# %% [markdown]
# ## 3.4 How stiff is the loss?
# *Challenge · 25 minutes · 3 points*
#
# The largest eigenvalue λ of the Hessian limits the step size: order scores mean something while
# ηλ stays well below 1. Find it from products alone, by power iteration.


# %%
def largest_curvature(hvp, start, products):
    """The largest eigenvalue of a positive Hessian, by power iteration.

    hvp: v [P] -> Hv [P]; start: any vector, [P]; products: how many may be spent
    returns: number
    """
    ### BEGIN SOLUTION
    v = start
    for _ in range(products):
        v = hvp(v / v.norm())
    return v.norm()
    ### END SOLUTION


# %%
ex.draw("3.4", largest_curvature)

# %%
ex.check("3.4", largest_curvature)

# %%
ex.hint("3.4")
# ex.solution("3.4")
