# %% [markdown]
# # Exercises 09: how far a prediction holds
# A stage is k steps on one source. `source.gradient(theta)` is a gradient, `source.hvp(theta, v)`
# a Hessian-vector product. A **cotangent** is a gradient with respect to parameters in the middle
# of a run: what the target's final loss would change if they were moved there.

# %%
import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 9.1 The k² law, and where it ends
# *Warm-up · 5 minutes · 1 point*
#
# The local score says that order effects grow like k². On log axes that is slope 2. Measure the
# slope between each two neighbors: where it leaves 2, the local score ends.


# %%
def slopes(steps, effects):
    """Slopes between neighboring points on log axes.

    steps: k, [n], rising; effects: mean size of the order effects, [n], positive
    returns: [n - 1]
    """
    ### BEGIN SOLUTION
    x, y = torch.log(steps), torch.log(effects)
    return (y[1:] - y[:-1]) / (x[1:] - x[:-1])
    ### END SOLUTION


# %%
ex.draw("9.1", slopes)

# %%
ex.check("9.1", slopes)

# %%
ex.hint("9.1")
# ex.solution("9.1")

# %% [markdown]
# ## 9.2 A stage in reverse
# *Exercise · 15 minutes · 2 points*
#
# A step is θ' = θ − lr g(θ), with derivative I − lr H(θ). Carry a cotangent λ from the end of a
# stage back to its start: one product for each step.


# %%
def reverse_stage(source, path, cotangent, lr):
    """Transposed derivative of a stage of SGD.

    source: the objective; path: parameters before step 1, 2, …, k, a list of [P]
    cotangent: at the end of the stage, [P]; lr: step size
    returns: the cotangent at the start, [P]
    """
    ### BEGIN SOLUTION
    for theta in reversed(path):
        cotangent = cotangent - lr * source.hvp(theta, cotangent)
    return cotangent
    ### END SOLUTION


# %%
ex.check("9.2", reverse_stage)

# %%
ex.hint("9.2")
# ex.solution("9.2")

# %% [markdown]
# ## 9.3 Momentum in reverse
# *Challenge · 20 minutes · 3 points*
#
# Now the state is (θ, m), and a step is m' = β m + g(θ), then θ' = θ − lr m'. Cotangents λ of θ'
# and μ of m' come in; those of θ and m go out. Still one product.


# %%
def reverse_momentum(source, theta, lam, mu, lr, beta):
    """Transposed derivative of one step with momentum.

    theta: parameters before the step, [P]
    lam, mu: cotangents of parameters and momentum after the step, [P] each
    returns: the cotangents before the step, (of the parameters, of the momentum)
    """
    ### BEGIN SOLUTION
    p = mu - lr * lam
    return lam + source.hvp(theta, p), beta * p
    ### END SOLUTION


# %%
ex.check("9.3", reverse_momentum)

# %%
ex.hint("9.3")
# ex.solution("9.3")

# %% [markdown]
# ## 9.4 The commutator from its pieces
# *Exercise · 15 minutes · 2 points*
#
# N sources. Each was trained alone to `solo[i]`, and once more, from the mean of the *others'* solo
# ends, to `second[i]`. λ is the target's gradient at the mean of the second ends, and `w[i]` is λ
# carried back over the second stage of source i. Put together all order effects, "i, then j" minus
# "j, then i".


# %%
def stage_commutator(solo, second, w, lam):
    """Order effects of all pairs of stages.

    solo, second, w: [N, P], a row for each source; lam: [P]
    returns: [N, N], loss of "i, then j" minus loss of "j, then i"
    """
    ### BEGIN SOLUTION
    others = (solo.sum(0) - solo) / (len(solo) - 1)
    m = second @ lam + solo @ w.T - (others * w).sum(1)
    return m - m.T
    ### END SOLUTION


# %%
ex.check("9.4", stage_commutator)

# %%
ex.hint("9.4")
# ex.solution("9.4")

# %% [markdown]
# ## 9.5 The stage commutator
# *An afternoon · 90 minutes · 4 points*
#
# All of it, from a list of sources, a target and a start, for plain SGD: train each alone, train
# each once more from the mean of the others' ends, carry the target's gradient back, put it
# together. At most one product for each step of the second stages. (The package also reads the
# target's loss for every pair.)


# %%
def stage_effects(sources, target, theta, lr, steps):
    """Predicted loss of the target after "i, then j" minus that after "j, then i".

    sources: a list of N objectives; target: one; theta: start, [P]; lr: step size; steps: k
    returns: [N, N] in loss units
    """

    ### BEGIN SOLUTION
    def stage(source, start):
        path = [start]
        for _ in range(steps):
            path.append(path[-1] - lr * source.gradient(path[-1]))
        return path

    def carried_back(source, path, v):
        for point in reversed(path[:-1]):
            v = v - lr * source.hvp(point, v)
        return v

    n = len(sources)
    solo = torch.stack([stage(source, theta)[-1] for source in sources])
    others = (solo.sum(0) - solo) / (n - 1)
    paths = [stage(source, start) for source, start in zip(sources, others, strict=True)]
    second = torch.stack([path[-1] for path in paths])
    lam = target.gradient(second.mean(0))
    w = [carried_back(source, path, lam) for source, path in zip(sources, paths, strict=True)]
    m = second @ lam + torch.stack([(solo - others[j]) @ w[j] for j in range(n)], dim=1)
    return m - m.T
    ### END SOLUTION


# %%
ex.check("9.5", stage_effects)

# %%
ex.hint("9.5")
# ex.solution("9.5")
