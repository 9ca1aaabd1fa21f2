# %% [markdown]
# # Exercises 01: flows and brackets
# Fill in the functions, run `draw` to compare, run `check`. Nothing fails while a function is
# untouched. Points are float64 tensors of shape `[n]`; a field is called as `field(x)`.

# %%
import math

import torch

from lietoolkit.course import exercises as ex
from lietoolkit.geometry.fields import flow

# %% [markdown]
# ## 1.1 Follow a field
# *Warm-up · 5 minutes · 1 point*
#
# Walk along a field for time `t` in `steps` equal straight steps, looking at the arrow anew before
# each step. On the field −∇L this is gradient descent.


# %%
def follow(field, x, t, steps):
    """Follow a field in small straight steps (Euler's method).

    field: callable, x [n] -> velocity [n]
    x: start, [n]
    t: total time; steps: number of steps
    returns: end, [n]
    """
    ### BEGIN SOLUTION
    for _ in range(steps):
        x = x + t / steps * field(x)
    return x
    ### END SOLUTION


# %%
ex.draw("1.1", follow)

# %%
ex.check("1.1", follow)

# %%
ex.hint("1.1")
# ex.solution("1.1")

# %% [markdown]
# ## 1.2 The parallelogram that does not close
# *Exercise · 10 minutes · 2 points*
#
# Follow `f` and then `g`, each for time `t`; then start again and follow `g` first. Where the two
# ends differ, order matters. `flow(f, x, t)` gives the end of one leg.


# %%
def gap(f, g, x, t):
    """End of "f, then g" minus end of "g, then f".

    f, g: fields; x: start, [n]; t: time of each leg
    returns: difference of the ends, [n]
    """
    ### BEGIN SOLUTION
    f_first = flow(g, flow(f, x, t), t)
    g_first = flow(f, flow(g, x, t), t)
    return f_first - g_first
    ### END SOLUTION


# %%
ex.draw("1.2", gap)

# %%
ex.check("1.2", gap)

# %%
ex.hint("1.2")
# ex.solution("1.2")

# %% [markdown]
# ## 1.3 The Lie bracket
# *Exercise · 15 minutes · 2 points*
#
# The gap is t²[f, g] for small t, with [f, g] = Dg f − Df g. Df is the Jacobian of f.


# %%
def bracket(f, g, x):
    """Lie bracket [f, g] at one point.

    f, g: fields; x: one point, [n]
    returns: Dg(x) f(x) - Df(x) g(x), [n]
    """
    ### BEGIN SOLUTION
    df = torch.autograd.functional.jacobian(f, x)
    dg = torch.autograd.functional.jacobian(g, x)
    return dg @ f(x) - df @ g(x)
    ### END SOLUTION


# %%
ex.draw("1.3", bracket)

# %%
ex.check("1.3", bracket)

# %%
ex.hint("1.3")
# ex.solution("1.3")

# %% [markdown]
# ## 1.4 Parallel parking
# *Challenge · 30 minutes · 3 points*
#
# A car at the origin looks along x. It can `"drive"` (by a signed length) and `"steer"` (turn on
# the spot by a signed angle). Park it at (0, 1), looking along x again. The street is narrow: the
# heading must stay within ±0.35 rad and x between 0 and 1. No field points sideways, but their
# bracket does.


# %%
def park():
    """Moves that bring the car from (0, 0) to (0, 1) with heading 0.

    returns: list of ("drive", length) and ("steer", angle), in the order they are done
    """
    ### BEGIN SOLUTION
    angle = math.atan(1 / 3)
    out = 1 / math.cos(angle)
    wiggle = [("steer", angle), ("drive", out), ("steer", -angle), ("drive", -1)]
    return wiggle * 3
    ### END SOLUTION


# %%
ex.draw("1.4", park)

# %%
ex.check("1.4", park)

# %%
ex.hint("1.4")
# ex.solution("1.4")
