# ---
# jupyter:
#   jupytext:
#     formats: ipynb,src//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · How do many pairs become one order?
#
# Six sources have 720 orders, and you cannot train them all. But every pair has a score. A league
# has the same problem: all matches are played, now make a table.
#
# **Goal.** Turn a matrix of pairs into an order in three ways, know when they disagree, and know
# what it costs: N gradients and N products in place of N! training runs.
#
# About 30 minutes. You need notebook 04.

# %%
from lietoolkit.course import course, itertools, live, lt, math, np, plots, toys

# %% tags=["parameters"]
profile = "laptop"  # ci, laptop or gpu; this notebook is the same in all of them
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## All pairs at once
#
# The score of a pair is $\langle H_B g_E, g_A\rangle - \langle H_A g_E, g_B\rangle$. So each source
# needs its gradient $g_i$ and *one* product $v_i = H_i g_E$. All pairs follow from inner products:
#
# $$\sigma_{ij} = \langle v_j, g_i\rangle - \langle v_i, g_j\rangle .$$

# %% tags=["nbval-check-output"]
*nets, target = toys.networks(7, seed)
sources = {nets[i].name: nets[i] for i in (3, 0, 5, 2, 4, 1)}
theta = toys.network_start(seed)
lr = lt.step_size(sources, theta).lr
t = lt.tournament(sources, target, theta, lr)
print("pairs:", len(sources) * (len(sources) - 1) // 2, "  parameters:", theta.numel())
print("cost in gradients:", round(t.cost.total))

# %%
live.picture(plots.order_matrix, t.matrix, t.names, size=(6.2, 4.4))

# %% [markdown]
# A cell says what happens if the *row* is trained before the *column*: negative is good. An order
# is worth the sum of the cells above the diagonal, once rows and columns are sorted by it: the
# lower, the better.
#
# **Borda** is a league table: sort by row sums, smallest first. **Exact** finds the best of all
# orders, by remembering the best order of every subset. **Search** takes a source out and puts it
# where it is best, until nothing helps.

# %% tags=["nbval-check-output"]
for name, total in sorted(t.scores.items(), key=lambda item: item[1]):
    print(f"{name}  row sum {total:+.5f}")
for method in ("borda", "exact", "search"):
    print(f"{method:6} ", " ".join(t.best_order(method)))

# %% [markdown]
# ## Predict

# %%
course.bet(
    "05.rank",
    "We train all 720 orders for real, one step a source. The Borda order comes…",
    ["first", "in the best 10%", "in the better half", "in the worse half"],
)

# %%
course.bet(
    "05.cycles",
    "A cycle: three sources that each want to go before the next, in a ring. Of 20 triples…",
    ["none is a cycle", "1 to 3 are", "4 or more are"],
)

# %%
course.bet(
    "05.long",
    "The same 720 orders with 5 steps a source. The rank of the Borda order, out of 720…",
    ["stays in the best 10%", "falls to between 10% and 50%", "falls into the worse half"],
)

# %% [markdown]
# ## Play
#
# A dot marks a pair that is better with the row first. Dots above the diagonal are pairs that this
# order pleases.
#
# 1. Set `sorted by` to *Borda*, then to *exact*. Which dots are left below the diagonal?
# 2. Raise `cycles mixed in`. What happens to the square (Borda), while the star (exact) stays best?
#    With *exact*, how many of the 15 pairs are pleased?

# %%
live.explore_matrix(t.matrix, t.names)

# %% [markdown]
# ## Rock, paper, scissors
#
# Three sliders, three pairs; negative means that the first one named is better first. As it opens,
# one order pleases all three pairs. Move one slider so that none does: you have built a cycle. Then
# make one of its pairs weak: which order wins, and does Borda see it?

# %%
live.explore_cycle()


# %% tags=["nbval-check-output"]
def cycles(m):
    triples = [(i, j, k) for k in range(len(m)) for j in range(k) for i in range(j)]
    return sum(abs(np.sign(m[i, j]) + np.sign(m[j, k]) + np.sign(m[k, i])) == 3
               for i, j, k in triples), len(triples)  # fmt: skip


found, triples = cycles(t.matrix.numpy())
print(f"{found} of {triples} triples are cycles")

# %%
bins = ["none is a cycle", "1 to 3 are", "4 or more are"]
course.reveal("05.cycles", bins[np.digitize(found, [1, 4])], f"{found} of {triples}")

# %% [markdown]
# **What you just saw.** Without cycles there is an order that pleases every pair, and *exact* finds
# it. With cycles none does, and the best one breaks what costs least. Borda sees row sums only: one
# big win can lift a source above another that beats it narrowly. It is cheap, and often close.
#
# ## The truth: all 720 orders
#
# A **stage** is the training on one source, so an order has N of them. Orders that begin alike
# share their first stages, so there are fewer to train than N for each order.

# %% tags=["nbval-check-output"]
orders = list(itertools.permutations(sources))
losses = lt.run_schedules(sources, target, theta, orders, lr, steps=1).numpy()
beginnings = {order[:n] for order in orders for n in range(1, len(order) + 1)}
print(f"{len(beginnings)} stages in place of {len(orders) * len(sources)}")


def rank(order, losses):
    return 1 + int((losses < losses[orders.index(tuple(order))]).sum())


for method in ("borda", "exact"):
    print(f"{method}: rank {rank(t.best_order(method), losses)} of {len(orders)}")

# %%
best = rank(t.order, losses)
bins = ["first", "in the best 10%", "in the better half", "in the worse half"]
course.reveal("05.rank", bins[np.digitize(best, [2, 73, 361])], f"rank {best} of 720")

# %% [markdown]
# Is the order's value, a sum over pairs, a good stand-in for its loss? And does it last? Each pair
# enters with half its effect: that is how far each of its two orders lies from their mean.

# %% tags=["nbval-check-output"]
matrix = t.matrix.numpy()
places = [[t.names.index(name) for name in order] for order in orders]
values = [np.triu(matrix[np.ix_(p, p)], 1).sum() / 2 for p in places]
print(f"correlation of value and loss, 1 step:  {np.corrcoef(values, losses)[0, 1]:.2f}")
longer = lt.run_schedules(sources, target, theta, orders, lr, steps=5).numpy()
print(f"correlation of value and loss, 5 steps: {np.corrcoef(values, longer)[0, 1]:.2f}")
print(f"Borda with 5 steps: rank {rank(t.order, longer)} of {len(orders)}")

# %%
bins = ["stays in the best 10%", "falls to between 10% and 50%", "falls into the worse half"]
course.reveal("05.long", bins[np.digitize(rank(t.order, longer), [73, 361])])

# %% [markdown]
# **What you just saw.** For short runs the sum over pairs nearly *is* the loss. With more steps the
# two part. Do they part further with another seed? In a terminal:
# `lietoolkit course run 05 -p seed 3`.
#
# ## N! against N
#
# What the orders cost to try, and what the tournament costs, counted in gradients.

# %% tags=["nbval-check-output"]
per_source = (t.cost.total - 1) / len(sources)
for n in (3, 6, 12, 24):
    print(f"{n:2} sources: {float(math.factorial(n)):.0e} orders, {n + n * (n - 1):4} stages for "
          f"all pairs, {1 + n * per_source:3.0f} gradients for the tournament")  # fmt: skip

# %% [markdown]
# ## Exercise
#
# Sort by row sums. Return two things: the row sums, one for each source, and the order as a list of
# row numbers, the one to train first in front. More, up to the best order of ten:
# [`exercises/05_tournaments.ipynb`](../exercises/05_tournaments.ipynb).


# %%
def my_borda(matrix):
    raise NotImplementedError("smallest row sum first")


course.check("5.2", my_borda)

# %% [markdown]
# ## Your bets

# %%
course.finish("05")

# %% [markdown]
# **Next.** The network had 121 parameters. In the notebooks that follow the same call orders the
# sources of a language model: text domains, instructions, preferences. The mathematics stays as it
# is.
