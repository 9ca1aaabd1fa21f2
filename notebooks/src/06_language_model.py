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
# # 06 · Does the order of texts matter to a language model?
#
# Python, C++, manuals, readmes: a model reads one after the other, one token at a time. It shall
# end good at one of them. What should it read last, and can two gradients tell?
#
# **Goal.** Make objectives of texts, see that nothing in the mathematics of notebooks 01 to 05
# changes, plan an order, and test the plan against every order, trained for real.
#
# About 30 minutes. You need notebook 05.

# %%
from lietoolkit.course import course, gradient_plane, itertools, language, live, lt, np, plots

# %% tags=["parameters"]
profile = "ci"  # ci: the course model; laptop, gpu: smollm2-135m
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## Texts of this very machine
#
# The passages are read from the Python that runs this notebook: its standard library, headers,
# manuals, the readmes of its packages. With other versions installed you have other passages, and
# other digits than this page; the lines that say `True` hold all the same. The loss is that of the
# next token, in nats.
#
# This page was run in profile `ci`, with the small model that comes with the package, in float64.
# What the same notebook showed on SmolLM2-135M, a much larger model, stands near its end.

# %% tags=["nbval-check-output"]
names = ["python", "cpp", "manual", "docstrings", "readme"]
study = language.load(run, "lm", names, ["python", "manual", "readme"])
print(f"theta has {study.theta.numel():,} numbers")

# %%
for name, target in study.targets.items():
    print(f"{name}, unseen passages: {float(target.loss(study.theta)):.2f} nats a token")
opening = study.rows["python"][0]["text"][:60]
print(opening, "…", language.complete(study, study.theta, opening, 24), sep="\n")

# %% [markdown]
# ## The same two calls
#
# `theta` is one long vector, a domain is a function of it. So the step size and the tournament are
# those of notebook 05.

# %% tags=["nbval-check-output"]
rule = lt.step_size(study.sources, study.theta, products=2)
t = lt.tournament(study.sources, study.targets, study.theta, rule.lr)
print(f"lr × curvature = {rule.eta_lambda_max:.2f}")

# %% [markdown]
# ## Predict

# %%
course.bet(
    "06.last",
    "The target is unseen Python. Of all five domains, the plan trains Python…",
    ["first", "in between", "last"],
)

# %%
course.bet(
    "06.gap",
    "One step on each of two domains, in both orders. The two ends lie apart, as a share of the "
    "way from the start…",
    ["a tenth or more", "about a hundredth", "a thousandth or less"],
)

# %% [markdown]
# ## Play
#
# 1. Change the target. Which domain moves most?
# 2. Take domains away, one by one. Does the order of the others hold?
# 3. Plan by Borda, then by exact. Do they part?
#
# Then choose **two to four sources and a target**: what is chosen here is trained below.

# %%
for name, matrix in t.targets.items():
    print(f"{name}: largest pair effect {float(matrix.abs().max()):.0e} nats at lr = {rule.lr:.1e}")
explorer = live.explore_ordering(t.targets, t.names, ["python", "cpp", "manual", "readme"])
explorer

# %%
places = ["first", "in between", "in between", "in between", "last"]
plan = language.best_of(t, names, "python")
course.reveal("06.last", places[plan.index("python")], " → ".join(plan))

# %%
course.bet(
    "06.rank",
    "You have seen the plan. How far do you trust it? All orders of the chosen sources are trained "
    "for real, and the planned one (exact) comes…",
    ["first", "in the best quarter", "in the better half", "in the worse half"],
)

# %% [markdown]
# ## The plane of two gradients
#
# Two steps on two domains span a plane in a space of all those dimensions. Here it is, with the
# target's loss as a map and both orders as paths; the inset shows how far their ends are apart.

# %%
chosen, goal = live.picked(explorer)
a, b = chosen[:2]
objectives = study.sources[a], study.sources[b], study.targets[goal]
plane = gradient_plane((a, b), *objectives, study.theta, rule.lr, points=5)
way = float(np.linalg.norm(plane.path_ab[-1]))
share = plane.bracket_norm * rule.lr**2 / way
print(f"{a} and {b}: ends apart by {share:.1%} of the way from the start")

# %%
ways = plane.path_ab, plane.path_ba
live.picture(plots.geometry_plane, plane.grid_x, plane.grid_y, plane.loss, *ways, (a, b),
             size=(7.4, 4.6))  # fmt: skip

# %%
bins = ["a thousandth or less", "about a hundredth", "a tenth or more"]
course.reveal("06.gap", bins[np.digitize(share, [0.003, 0.05])], f"{share:.1%}")

# %% [markdown]
# ## Train every order for real

# %% tags=["nbval-check-output"]
orders = list(itertools.permutations(chosen))
pick = {goal: study.targets[goal]}
losses = lt.run_schedules(study.sources, pick, study.theta, orders, rule.lr).numpy()[:, 0]
guess = language.predicted(t.targets[goal], t.names, orders)
agreement = np.corrcoef(guess, losses)[0, 1]
print(f"Correlation of predicted and measured above 0.9: {agreement > 0.9}")

# %%
for method in ("exact", "borda"):
    order = language.best_of(t, chosen, goal, method)
    place = language.rank(order, orders, losses)
    print(f"{method}: {' '.join(order)}: rank {place} of {len(orders)}")
print(f"correlation of predicted and measured: {agreement:.3f}")
live.show_orders(guess, losses, orders, language.best_of(t, chosen, goal))

# %%
plan = language.best_of(t, chosen, goal)
place = language.rank(plan, orders, losses)
bins = ["first", "in the best quarter", "in the better half", "in the worse half"]
edges = [2, len(orders) // 4 + 1, len(orders) // 2 + 1]
course.reveal("06.rank", bins[np.digitize(place, edges)], f"rank {place} of {len(orders)}")

# %% [markdown]
# **What you just saw.** Each point is one order, trained; both axes count from the mean of all
# orders. The unit on the axes is small: lr enters the order effect squared.
#
# ## Five steps in place of one
#
# With k steps a source the effect should grow like k², here 25 times, as long as the model stays
# near its start.

# %%
ends = {label: language.train(study, order, rule.lr, 5)
        for label, order in (("plan", plan), ("reverse", plan[::-1]))}  # fmt: skip
after = {label: float(study.targets[goal].loss(theta)) for label, theta in ends.items()}
short = losses[orders.index(tuple(plan))] - losses[orders.index(tuple(plan[::-1]))]
start = float(study.targets[goal].loss(study.theta))
print(f"loss of {goal}: {start:.3f} before, {after['plan']:.3f} after five steps a source")
print(f"plan minus reverse: {short:+.1e} nats with 1 step, "
      f"{after['plan'] - after['reverse']:+.1e} with 5")  # fmt: skip
growth = (after["plan"] - after["reverse"]) / short
print(f"growth: {growth:.0f} times")

# %% tags=["nbval-check-output"]
print(f"The ends of two orders lie apart by less than 5 % of the way: {share < 0.05}")
print(f"With 5 steps the difference is more than 10 times as large: {growth > 10}")

# %%
opening = study.rows[goal][0]["text"][:60]
for label, theta in {"start": study.theta, **ends}.items():
    print(f"{label:8}", repr(language.complete(study, theta, opening, 16)))

# %% [markdown]
# **What you just saw.** A few short steps hardly change what the model writes, and the order
# changes it less. That is no failure of the prediction: it is about the loss, and it says how small
# the difference will be. Where order matters more, with long stages, is the matter of notebooks 09
# and 10.
#
# ## The same on SmolLM2-135M
#
# A pretrained model of 135 million parameters, in float32, with twice the rows. This is what the
# cells above printed in that run:

# %% tags=["nbval-check-output"]
course.recorded("06")

# %% [markdown]
# **What you just saw.** Here too the planned order (exact) comes first, and Borda's does not. On
# this model the two ends lie further apart, measured by the way from the start, and the order
# effect is far larger. It is also less well predicted: the correlation is high and no longer
# perfect, and the growth with five steps falls behind that of the local picture. Plan and reverse
# write the same text all the same.
#
# ## Exercise
#
# Which tokens are learned? Not the padding. More, up to losses that add up from parts:
# [`exercises/06_language_model.ipynb`](../exercises/06_language_model.ipynb).


# %%
def my_labels(input_ids, attention_mask):
    raise NotImplementedError("-100 on padding")


course.check("6.1", my_labels)

# %% [markdown]
# ## Your bets

# %%
course.finish("06")

# %% [markdown]
# **Next.** Text is learned whole. In [07 · instruction tuning](07_instruction_tuning.ipynb) only
# the answers are, and you can read whether they become right.
