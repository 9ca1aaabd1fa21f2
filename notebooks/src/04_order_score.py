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
# # 04 · Can one number say which source to train on first?
#
# Bowls are easy. Real losses are curved in every direction and their curvature changes as you move.
# Here are six data sets, one small network, and a target. We predict all 15 pairs and then train
# both orders of each, for real.
#
# **Goal.** Use the order score, know what its sign and size mean, and see where it breaks: with
# long steps, and with many of them.
#
# About 30 minutes. You need notebooks 01 and 02.

# %%
from lietoolkit.course import course, live, lt, np, toys

# %% tags=["parameters"]
profile = "laptop"  # ci, laptop or gpu; this notebook is the same in all of them
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## Six sources and a target
#
# A **source** is a data set one may train on; its loss is a function of the network's parameters
# $\theta$. The **target** is the loss that should end low. Whether a step is long depends on the
# curvature, so we measure `lr` in units of 1 / (largest curvature); that is the largest eigenvalue
# of the sources' Hessians at the start. At 2 gradient descent blows up.

# %%
*nets, target = toys.networks(7, seed)
sources = {net.name: net for net in nets}
theta = toys.network_start(seed)
rule = lt.step_size(sources, theta)
print(f"{theta.numel()} parameters; largest curvature {max(rule.lambda_max.values()):.2f}")
print(f"lr × curvature = {rule.eta_lambda_max:.2f} at lr = {rule.lr:.4f}")

# %% [markdown]
# ## One pair
#
# The **order effect** is a difference of two trained models: the target's loss after "A, then B"
# minus the loss after "B, then A". Negative: A first is better. Predicted from the start alone, it
# is
#
# $$L_E(A\to B) - L_E(B\to A) \approx (k\, lr)^2\, \sigma_{AB}, \qquad
# \sigma_{AB} = \langle g_E,\; H_B\, g_A - H_A\, g_B \rangle,$$
#
# for $k$ steps on each source.

# %% tags=["nbval-check-output"]
a, b = sources["s1"], sources["s2"]
sigma = lt.order_score(a, b, target, theta)
predicted = lt.predict_order_effect(a, b, target, theta, lr=rule.lr)
measured = lt.measure_order_effect(a, b, target, theta, lr=rule.lr)
print(f"score {sigma:.4f}, predicted {predicted:.2e}, measured {measured:.2e}")
print("train first:", "s1" if measured < 0 else "s2")

# %% [markdown]
# ## Predict

# %%
course.bet(
    "04.growth",
    "Small lr. Train 5 steps on each source in place of 1. The order effects grow about…",
    ["5 times", "10 times", "25 times", "125 times"],
)

# %%
course.bet(
    "04.signs",
    "lr × curvature = 0.1, 20 steps a source. Of 15 pairs, the score gets the sign right in…",
    ["all 15", "12 to 14", "9 to 11", "8 or fewer: a coin toss"],
)

# %%
course.bet(
    "04.trotter",
    "Read the target's gradient further on, after a joint step on A and B. The error…",
    ["grows", "shrinks by less than a third", "shrinks by a third or more"],
)

# %% [markdown]
# ## Play
#
# `pair_effects` trains every pair in both orders, at nine step sizes and five numbers of steps.
# Then:
#
# 1. With one step, go from small to large `lr × curvature`. When do points leave the dashed line?
#    When does the first sign flip?
# 2. Look at the slope in the middle: two decades up for one decade right.
# 3. Set `steps k` to 20. Which step sizes are still safe?
# 4. Switch `prediction` to *trotter* (explained below). What changes on the left?

# %%
effects = live.pair_effects(sources, target, theta)
live.explore_pairs(effects)

# %% [markdown]
# ## Code: the slope
#
# If the effect goes like $lr^2$, it is a line of slope 2 on log axes.


# %% tags=["nbval-check-output"]
def slope(k, upto=4):
    size = np.abs(effects.measured[effects.steps.index(k)]).mean(-1)
    return np.polyfit(np.log(effects.lrs[:upto]), np.log(size[:upto]), 1)[0]


print(f"slope with 1 step:   {slope(1):.2f}")
print(f"slope with 20 steps: {slope(20):.2f}")

# %% tags=["nbval-check-output"]
size = np.abs(effects.measured).mean(-1)[:, 0]
for k, growth in zip(effects.steps, size / size[0], strict=True):
    print(f"{k:2} steps: order effects {growth:6.1f} times those of one step (k² = {k * k})")

# %%
growth = size[effects.steps.index(5)] / size[0]
choices = [5, 10, 25, 125]
nearest = min(choices, key=lambda n: abs(np.log(growth / n)))
course.reveal("04.growth", f"{nearest} times", f"{growth:.1f} times")

# %% [markdown]
# ## Code: where it breaks

# %% tags=["nbval-check-output"]
relative = effects.lrs * effects.stiffness
columns = [1, 3, 4, 6]
print(f"signs right of {effects.measured.shape[-1]}, local score")
print("lr × curvature " + "".join(f"{relative[j]:7.2f}" for j in columns))
for k, row in zip(effects.steps, effects.signs_right("local"), strict=True):
    print(f"{k:2} steps       " + "".join(f"{row[j]:7}" for j in columns))

# %%
hits = int(effects.signs_right("local")[effects.steps.index(20), 4])
bins = {"all 15": hits == 15, "12 to 14": 12 <= hits <= 14, "9 to 11": 9 <= hits <= 11}
truth = next((text for text, yes in bins.items() if yes), "8 or fewer: a coin toss")
course.reveal("04.signs", truth, f"{hits} of 15")

# %% [markdown]
# **What you just saw.** The score is a derivative at the start: the first term of a series. What
# must be small is the *distance travelled*, $k \cdot lr \cdot$ curvature. A long run of short
# steps breaks it as surely as one long step. Fine-tuning is a long run; notebooks 09 and 10 are
# about that.
#
# ## A better place to read the target
#
# Both orders go about $lr\,(g_A + g_B)$ away from the start. There the target's gradient has
# already changed. The **Trotter** reference reads it where the two orders come to lie:
# $g_E(\theta - lr\,(g_A + g_B))$. The bracket is still that of the start.


# %% tags=["nbval-check-output"]
def error(method, j):
    off = np.abs(effects.predicted[method][0, j] - effects.measured[0, j])
    return off.sum() / np.abs(effects.measured[0, j]).sum()


for j in columns:
    print(f"lr × curvature {relative[j]:.2f}: relative error "
          f"local {error('local', j):5.1%}, trotter {error('trotter', j):5.1%}")  # fmt: skip

# %%
shrinks = error("trotter", 4) / error("local", 4)
answers = ["shrinks by a third or more", "shrinks by less than a third", "grows"]
truth = answers[int(np.digitize(shrinks, [2 / 3, 1]))]
course.reveal("04.trotter", truth, f"the error is {shrinks:.2f} times that of the local score")

# %% [markdown]
# **What you just saw.** One of two errors is gone: that of the target's gradient. The other one, of
# the bracket itself, stays. Both errors go to zero like $lr$.
#
# ## Exercise
#
# A score $\sigma$, a step size `lr`, and $k$ steps on each source (`steps`): what order effect does
# it predict? Return one number, with its sign. More, up to the Trotter reference:
# [`exercises/04_order_score.ipynb`](../exercises/04_order_score.ipynb).


# %%
def my_effect(sigma, lr, steps):
    raise NotImplementedError("in loss units")


course.check("4.1", my_effect)

# %%
course.hint("4.1")

# %% [markdown]
# ## Your bets

# %%
course.finish("04")

# %% [markdown]
# **Next.** Two sources have two orders, three have six, N have N!: soon too many to try. In
# [05 · tournaments](05_tournaments.ipynb) all pairs together give one order, for the price of one
# gradient and one product a source.
