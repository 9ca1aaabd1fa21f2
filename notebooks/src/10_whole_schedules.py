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
# # 10 · In which order does a whole schedule end well?
#
# A score of pairs, read at the start, says what the first steps will do. People train for many
# steps, on several sources, with AdamW, an optimizer with a memory of past gradients. Can the order
# of such a run be planned, for less than it costs to try orders out?
#
# **Goal.** See all orders of five sources as one tree, plan from its end, and hold the plan
# against luck at the same price.
#
# About 40 minutes. You need notebook 05.

# %%
from lietoolkit.course import course, itertools, live, lt, np, study_schedules, toys

# %% tags=["parameters"]
profile = "laptop"  # ci, laptop or gpu; this notebook is the same in all of them
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## Every order, trained for real
#
# A **draw** is five data sets, a sixth as the target, and one small network. Each source is one
# *stage* of $k$ steps. Orders that begin alike share their beginning.


# %% tags=["nbval-check-output"]
def draw(number):
    *nets, target = toys.networks(6, seed + number)
    return dict(zip("ABCDE", nets, strict=True)), target, toys.network_start(seed + number)


sources, target, theta = draw(0)
k, lr = 20, 3 * lt.step_size(sources, theta).lr
orders = list(itertools.permutations(sources))
losses = lt.run_schedules(sources, target, theta, orders, lr, k).numpy()
stages = {order[:n] for order in orders for n in range(1, len(order) + 1)}
print(f"{len(orders)} orders, {len(stages)} stages of {k} steps; loss at the start "
      f"{float(target.loss(theta)):.3f}")  # fmt: skip
print(f"at the end: best {losses.min():.3f}, median {np.median(losses):.3f}, "
      f"worst {losses.max():.3f}")  # fmt: skip

# %% [markdown]
# ## Who comes last?
#
# A pair of sources does not see the stages that follow it. The last stage has none that follow. So
# choose it first: for each candidate, train the *others* interleaved, one step each in turn, then
# the candidate, and read the loss. The lowest wins. Then choose the one before it in the same way,
# with the stages already chosen behind it, and so on to the front.

# %% tags=["nbval-check-output"]
plan = lt.plan_from_end(sources, target, theta, lr, k, effort="exact")
for number, scores in enumerate(plan.rounds, 1):
    listed = "  ".join(f"{name} {loss:.3f}" for name, loss in scores.items())
    print(f"round {number}: {listed}   lowest: {min(scores, key=scores.get)}")
rank = 1 + int((losses < losses[orders.index(tuple(plan.order))]).sum())
print(f"plan {' '.join(plan.order)}: rank {rank} of {len(orders)}")
print(f"cost: {plan.cost.total / (len(sources) * k):.2f} training runs of all sources")

# %% [markdown]
# That is a price. Whoever pays it could also try as many orders at random and keep the best. So a
# planner is good only if it beats **luck at its own cost**. We count in training runs of all
# sources, and measure the **share of the gap**: 0 is the median order, 1 the best of all.
#
# ## Predict

# %%
course.bet(
    "10.tournament",
    "The tournament of 05, scored at the start; then SGD, 20 steps a stage; six draws. The mean "
    "percentile of its order (100: the best, 50: chance) is…",
    ["above 80", "60 to 80", "40 to 60", "below 40"],
)

# %%
course.bet(
    "10.place",
    "AdamW, 20 steps a stage. Whose place decides most of the final loss?",
    ["who comes first", "who stands in the middle", "who comes last"],
)

# %%
course.bet(
    "10.luck",
    "AdamW again. A plan from the end with a quarter of the steps against the best of 4 random "
    "orders, on average over the luck. Of six draws the plan wins…",
    ["all six", "four or five", "three or fewer"],
)

# %% [markdown]
# ## Play
#
# The next cell trains all orders of six draws in four ways, and lets every planner choose. It takes
# about a minute. With *warm-up and decay* the step size grows at first and then shrinks. The
# planners:
#
# - *tournament*: as in 05;
# - *solo*: train each source alone; the one that ends lowest goes last, or first;
# - *from the end*: as above; *k/4* and *k/10* use a quarter or a tenth of the steps of a stage;
# - *one-shot*: only the first round, sorted: the lowest goes last.

# %%
draws = 6
ways = {
    "SGD, 1 step": (1, "sgd"),
    "SGD, 20 steps": (k, "sgd"),
    "AdamW, 20 steps": (k, "adamw"),
    "AdamW, warm-up and decay": (k, "adamw", "linear", 10),
}
studies = {name: [] for name in ways}
for number in range(draws):
    s, e, start = draw(number)
    rates = {"sgd": 3 * lt.step_size(s, start).lr, "adamw": 3e-3}
    for name, way in ways.items():
        studies[name].append(study_schedules(s, e, start, rates[way[1]], *way))

# %% [markdown]
# Left, each row is one order, and the boxes with the star follow the best one. Dots mark the orders
# still open to the planner.
#
# 1. Raise `rounds planned`, one by one. Where is the best order's branch? Set `tree grows from` to
#    *the start*: where are the open orders now?
# 2. Change `planner` and `trained with`. Right: which planners lie below the curve of luck,
#    *random, best of B* orders?
# 3. Move `orders tried at random`. How many random orders are as good as the plan?

# %%
live.explore_schedules(studies, "SGD, 20 steps")

# %% [markdown]
# **What you just saw.** With SGD and many steps, the tree that grows from the end has bright and
# dark branches: one choice removes most bad orders. Grown from the start, every branch holds good
# and bad ones. With warm-up and decay no single place tells so much. In numbers, from the first
# place to the last:

# %% tags=["nbval-check-output"]
print("share of the variance that the source in each place explains, mean of the draws")
places = {}
for name, drawn in studies.items():
    places[name] = [np.mean([study.explained(place) for study in drawn]) for place in range(5)]
    print(f"{name:25}", "  ".join(f"{share:.2f}" for share in places[name]))

# %%
answers = ["who comes first", *3 * ["who stands in the middle"], "who comes last"]
course.reveal("10.place", answers[int(np.argmax(places["AdamW, 20 steps"]))])

# %% [markdown]
# ## Where pairs stop
#
# For each draw, two ranks among all orders: of the tournament's order, and of the plan from the
# end.

# %% tags=["nbval-check-output"]
mean = {}
for name, drawn in studies.items():
    for planner in ("tournament", "from the end"):
        ranks = [study.rank(study.plans[planner].order) for study in drawn]
        mean[name, planner] = np.mean([study.percentile(planner) for study in drawn])
        print(f"{name:25}{planner:13} ranks", *(f"{rank:3}" for rank in ranks),
              f"  mean percentile {mean[name, planner]:.0f}")  # fmt: skip

# %%
found = mean["SGD, 20 steps", "tournament"]
bins = ["below 40", "40 to 60", "60 to 80", "above 80"]
course.reveal("10.tournament", bins[np.digitize(found, [40, 60, 80])], f"{found:.0f}")

# %% [markdown]
# ## What a plan costs
#
# Two columns are worth reading against each other: the share of the gap, and what luck gives for
# the same number of runs, at least one. Medians of the draws.

# %% tags=["nbval-check-output"]
wins = {}
for name in ("SGD, 20 steps", "AdamW, 20 steps", "AdamW, warm-up and decay"):
    drawn = studies[name]
    print(f"{name:27} runs  share   luck  better than luck")
    for planner, plan in drawn[0].plans.items():
        budget = max(1, round(plan.cost))
        pairs = [(study.share(planner), study.random(budget)) for study in drawn]
        share, luck = np.median(pairs, axis=0)
        wins[name, planner] = sum(share > study.random(4) for (share, _), study in
                                  zip(pairs, drawn, strict=True))  # fmt: skip
        print(f"    {planner:22}{plan.cost:6.2f}{share:7.2f}{luck:7.2f}"
              f"   in {sum(a > b for a, b in pairs)} of {draws}")  # fmt: skip

# %%
won = wins["AdamW, 20 steps", "from the end, k/4"]
bins = ["three or fewer", "four or five", "all six"]
course.reveal("10.luck", bins[np.digitize(won, [4, 6])], f"{won} of {draws}")

# %% [markdown]
# ## Learn from every try
#
# Who tries orders need not try them blindly. Orders are alike where sources keep their places and
# pairs their direction; so each loss says something about orders that were not tried. Fit that,
# try next what should lower the lowest guess most, and begin with an order and its reverse. Mean
# share of the gap after so many tries, over the draws and five beginnings of each:

# %% tags=["nbval-check-output"]
tries = (2, 4, 8, 12)
print(f"{'tries':27}" + "".join(f"{t:6}" for t in tries))
for name in ("SGD, 20 steps", "AdamW, 20 steps", "AdamW, warm-up and decay"):
    shares = []
    for study in studies[name]:
        loss = {order: study.loss([study.names[i] for i in order])
                for order in itertools.permutations(range(5))}  # fmt: skip
        for beginning in range(5):
            found = lt.search_orders(lambda o, of=loss: of[tuple(o)], 5, 12, seed=beginning)
            shares.append([study.gap_share(min(found.losses[:t])) for t in tries])
    luck = np.mean([[study.random(t) for t in tries] for study in studies[name]], axis=0)
    print(f"{name:27}" + "".join(f"{x:6.2f}" for x in np.mean(shares, axis=0)))
    print(f"{'    luck':27}" + "".join(f"{x:6.2f}" for x in luck))

# %% [markdown]
# **What you just saw.** After one step a stage, pairs know nearly everything. After many, with SGD,
# their order is no better than chance, and with AdamW it is a gamble. The tournament never saw the
# later steps, nor the optimizer.
#
# From the end, a quarter of the steps beats luck at its own price in every draw. Not every plan
# does. The full one costs so many runs that luck comes close, and with warm-up and decay luck
# sometimes wins. A plan with a tenth of the steps is now and then far off; with SGD it is hardly
# better than luck. And sorting by one round (*one-shot*) is cheap and good where the last place
# matters most; where a step-size schedule makes other places count too, it is no better than luck.
# The search needs no idea of training at all, and from a few tries on it leaves luck behind. It is
# what `lietoolkit plan` does for long runs: with whole runs, or with shorter rehearsals of them.
#
# Six draws of one small network are few. On your model, hold the plan against random orders again.
#
# ## Exercise
#
# What does luck give, without trying? `losses` are those of all orders, unsorted; `runs`
# *different* ones are drawn at random and the best is kept. Return its loss on average, one number,
# by a formula. More, up to the whole planner:
# [`exercises/10_whole_schedules.ipynb`](../exercises/10_whole_schedules.ipynb).


# %%
def my_expected_best(losses, runs):
    raise NotImplementedError("the mean of the lowest loss, over all ways to draw")


course.check("10.1", my_expected_best)

# %% [markdown]
# ## Your bets

# %%
course.finish("10")

# %% [markdown]
# **Next.** Your model, your data: `lietoolkit plan` plans an order and writes a report; its truth
# runs hold the plan against other orders.
