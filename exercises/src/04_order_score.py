# %% [markdown]
# # Exercises 04: the order score
# Sources `a` and `b` and the target are `lt.Objective`s: `x.loss(theta)`, `x.gradient(theta)` and
# `x.gradient_and_hvp(theta, v)`; `theta` has shape `[P]`, float64.

# %%
import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 4.1 What the score predicts
# *Warm-up · 3 minutes · 1 point*
#
# From the score σ to a difference of losses, for stages of k steps of size η.


# %%
def predicted_effect(sigma, lr, steps):
    """Predicted L_E(A then B) - L_E(B then A).

    sigma: order score; lr: step size; steps: steps per stage, k
    returns: number, in loss units
    """
    ### BEGIN SOLUTION
    return (steps * lr) ** 2 * sigma
    ### END SOLUTION


# %%
ex.draw("4.1", predicted_effect)

# %%
ex.check("4.1", predicted_effect)

# %%
ex.hint("4.1")
# ex.solution("4.1")

# %% [markdown]
# ## 4.2 The score, one product per source
# *Exercise · 15 minutes · 2 points*
#
# σ_AB = ⟨g_E, H_B g_A − H_A g_B⟩. Hessians are symmetric, so the products can all be with g_E: then
# N sources need N products, not one for each pair.


# %%
def order_score(a, b, target, theta):
    """The order score sigma_AB, from one product per source.

    a, b, target: objectives; theta: [P]
    returns: number; negative means A first
    """
    ### BEGIN SOLUTION
    g_target = target.gradient(theta)
    g_a, v_a = a.gradient_and_hvp(theta, g_target)
    g_b, v_b = b.gradient_and_hvp(theta, g_target)
    return torch.dot(v_b, g_a) - torch.dot(v_a, g_b)
    ### END SOLUTION


# %%
ex.check("4.2", order_score)

# %%
ex.hint("4.2")
# ex.solution("4.2")

# %% [markdown]
# ## 4.3 The truth
# *Exercise · 15 minutes · 2 points*
#
# Train both orders with plain SGD and compare the target's loss at the end.


# %%
def measured_effect(a, b, target, theta, lr, steps):
    """L_E(A then B) - L_E(B then A), trained for real.

    a, b, target: objectives; theta: [P]; lr: step size; steps: steps per stage
    returns: number, in loss units
    """

    ### BEGIN SOLUTION
    def end(first, second):
        x = theta
        for source in (first, second):
            for _ in range(steps):
                x = x - lr * source.gradient(x)
        return float(target.loss(x))

    return end(a, b) - end(b, a)
    ### END SOLUTION


# %%
ex.draw("4.3", measured_effect)

# %%
ex.check("4.3", measured_effect)

# %%
ex.hint("4.3")
# ex.solution("4.3")

# %% [markdown]
# ## 4.4 A better place to look: the Trotter reference
# *Challenge · 25 minutes · 3 points*
#
# Both orders end near θ − η(g_A + g_B), not at θ. Read the target's gradient there, leave the
# bracket at θ, and predict the effect of one step each.


# %%
def trotter_effect(a, b, target, theta, lr):
    """Predicted effect with the drift-matched reference.

    a, b, target: objectives; theta: [P]; lr: step size
    returns: number, in loss units
    """
    ### BEGIN SOLUTION
    g_a, g_b = a.gradient(theta), b.gradient(theta)
    reference = theta - lr * (g_a + g_b)
    g_target = target.gradient(reference)
    v_a = a.gradient_and_hvp(theta, g_target)[1]
    v_b = b.gradient_and_hvp(theta, g_target)[1]
    return lr**2 * (torch.dot(v_b, g_a) - torch.dot(v_a, g_b))
    ### END SOLUTION


# %%
ex.draw("4.4", trotter_effect)

# %%
ex.check("4.4", trotter_effect)

# %%
ex.hint("4.4")
# ex.solution("4.4")
