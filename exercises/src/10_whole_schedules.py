# %% [markdown]
# # Exercises 10: whole schedules
# A run of all sources is a list of names, one for each step. `run(turns)` trains on it and returns
# the target's loss at the end; low is good.

# %%
import itertools
import math

import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 10.1 What luck gives
# *Exercise · 15 minutes · 2 points*
#
# Somebody tries `runs` *different* orders, drawn at random, and keeps the best. You know the losses
# of all orders. Which loss do they get on average? A formula, not a simulation.


# %%
def expected_best(losses, runs):
    """The expected lowest loss of some orders drawn at random.

    losses: of all orders, unsorted, [n]; runs: how many different ones are tried
    returns: a number
    """
    ### BEGIN SOLUTION
    n = len(losses)
    ordered = losses.sort().values.tolist()
    ways = [math.comb(n - 1 - i, runs - 1) for i in range(n)]
    return sum(w * x for w, x in zip(ways, ordered, strict=True)) / math.comb(n, runs)
    ### END SOLUTION


# %%
ex.draw("10.1", expected_best)

# %%
ex.check("10.1", expected_best)

# %%
ex.hint("10.1")
# ex.solution("10.1")

# %% [markdown]
# ## 10.2 Who comes last?
# *Exercise · 20 minutes · 2 points*
#
# For each candidate: train the *others* interleaved, one step each in turn, `steps` sweeps; then
# the candidate, `steps` steps. The order in a sweep is that of `names`, and every other sweep runs
# backwards (sweep 0 forwards), since whoever steps last in a sweep is favored.


# %%
def choose_last(names, steps, run):
    """The source that should be trained last.

    names: the sources; steps: of each stage
    run: function of a list of names, one for each step, to the target's final loss
    returns: {name: final loss with it at the end}, and the name with the lowest
    """
    ### BEGIN SOLUTION
    scores = {}
    for last in names:
        others = [name for name in names if name != last]
        turns = []
        for sweep in range(steps):
            turns += others[::-1] if sweep % 2 else others
        scores[last] = run(turns + [last] * steps)
    return scores, min(scores, key=scores.get)
    ### END SOLUTION


# %%
ex.draw("10.2", choose_last)

# %%
ex.check("10.2", choose_last)

# %%
ex.hint("10.2")
# ex.solution("10.2")

# %% [markdown]
# ## 10.3 Replay
# *Challenge · 30 minutes · 3 points*
#
# With AdamW the order matters even where gradients do not change: the state remembers. So record
# each source's gradients once, and replay the optimizer on them in any order, at no gradient's
# cost. At step n (from 1), with $m = v = 0$ before it:
#
# $$m \leftarrow 0.9\,m + 0.1\,g, \quad v \leftarrow 0.999\,v + 0.001\,g^2, \quad
# \Delta = -\eta\,\frac{m / (1 - 0.9^n)}{\sqrt{v / (1 - 0.999^n)} + 10^{-8}} .$$
#
# One state is carried through the whole run. No weight decay.


# %%
def replay(gradients, order, lr):
    """How far AdamW moves the parameters in this order.

    gradients: {name: recorded gradients, [k, P]}
    order: names, the one trained first in front
    returns: the sum of all moves, [P]
    """
    ### BEGIN SOLUTION
    moved = m = v = torch.zeros_like(gradients[order[0]][0])
    n = 0
    for name in order:
        for g in gradients[name]:
            n += 1
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g * g
            scale = (v / (1 - 0.999**n)).sqrt() + 1e-8
            moved = moved - lr * m / (1 - 0.9**n) / scale
    return moved
    ### END SOLUTION


# %%
ex.draw("10.3", replay)

# %%
ex.check("10.3", replay)

# %%
ex.hint("10.3")
# ex.solution("10.3")

# %% [markdown]
# ## 10.4 The whole plan
# *An afternoon · 120 minutes · 4 points*
#
# Choose the last source as in 10.2; then the one before it, and so on. In a later choice a
# candidate's run is: the others *that remain*, interleaved; the candidate; the stages already
# chosen, in their order. No run where one source remains.


# %%
def plan_schedule(names, steps, run):
    """An order planned from its end.

    names, steps, run: as in 10.2
    returns: list of names, the one trained first in front
    """
    ### BEGIN SOLUTION
    remaining, chosen = list(names), []
    while len(remaining) > 1:
        scores = {}
        for last in remaining:
            others = [name for name in remaining if name != last]
            turns = []
            for sweep in range(steps):
                turns += others[::-1] if sweep % 2 else others
            stages = [last, *chosen]
            turns += itertools.chain.from_iterable([name] * steps for name in stages)
            scores[last] = run(turns)
        best = min(scores, key=scores.get)
        remaining.remove(best)
        chosen = [best, *chosen]
    return remaining + chosen
    ### END SOLUTION


# %%
ex.check("10.4", plan_schedule)

# %%
ex.hint("10.4")
# ex.solution("10.4")
