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
# # 07 · In which order should a model learn its instructions?
#
# Add two numbers, sort words, copy a sentence, put a verb into the past: four small instruction
# sets, one model, and something it should be good at in the end.
#
# **Goal.** Plan an order of instruction sets, train *every* order for real, and see who was right:
# the plan, or you. Then read what the model writes after the plan and after its reverse.
#
# About 30 minutes. You need notebook 05; 06 helps.

# %%
from lietoolkit.course import course, gradient_plane, itertools, language, live, lt, np, plots

# %% tags=["parameters"]
profile = "ci"  # ci: the course model; laptop, gpu: smollm2-135m
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## Instructions, and a loss on the answers only
#
# A row is a prompt and its completion. The loss is the mean cross entropy over the *completion's*
# tokens, in nats: the prompt is read, not learned. Sources are trained on; a **target** holds rows
# of a family that are never trained on.
#
# This page was run in profile `ci`, with the small model that comes with the package, in float64.
# What the same notebook showed on SmolLM2-135M, a much larger model, stands near its end.

# %% tags=["nbval-check-output"]
names = ["addition", "sort", "copy", "past_tense", "plural"]
study = language.load(run, "sft", names, ["addition", "past_tense", "antonym"])
for name, target in study.targets.items():
    row = study.rows[name][0]
    print(f"{name}, loss {float(target.loss(study.theta)):.2f} nats")
    print("   ", repr(row["prompt"]), "should give", repr(row["completion"]))
    print("    the model says", repr(language.complete(study, study.theta, row["prompt"])))

# %% [markdown]
# ## All pairs, for three targets at once
#
# One gradient a source, and one product for each source and target. Nothing is trained yet.

# %% tags=["nbval-check-output"]
rule = lt.step_size(study.sources, study.theta, products=2)
t = lt.tournament(study.sources, study.targets, study.theta, rule.lr)
stiffest = max(rule.lambda_max, key=rule.lambda_max.get)
print(f"stiffest source: {stiffest}; lr = {rule.lr:.2e}")
for name, matrix in t.targets.items():
    print(f"{name:10} largest pair effect {float(matrix.abs().max()):.0e} nats; "
          f"plan: {' '.join(language.best_of(t, names, name))}")  # fmt: skip
signs = len(names) * (len(names) - 1) // 2 * len(t.targets)
print(f"{signs} signs: every pair of sources, for each target")

# %% [markdown]
# ## Predict

# %%
course.bet(
    "07.signs",
    f"Every pair, for every target, trained for real in both orders: {signs} signs. Right are…",
    ["all of them", "more than 9 in 10", "more than 7 in 10", "fewer"],
)

# %%
course.bet(
    "07.size",
    "Plan against reverse, one step a source. Beside what the training itself does to the target's "
    "loss, the difference is…",
    ["about as large", "about a tenth", "about a hundredth", "a thousandth or less"],
)

# %% [markdown]
# ## Play
#
# 1. Change the target. Does the order stay the same? It is the target that decides.
# 2. Take a source away. Can that turn two of the others round?
# 3. Plan by Borda, then by exact. Do they part?
#
# Then choose **two to four sources and a target**: what is chosen here is trained below.

# %%
explorer = live.explore_ordering(t.targets, t.names, ["addition", "sort", "copy", "past_tense"])
explorer

# %%
course.bet(
    "07.rank",
    "You have seen the plan. How far do you trust it? All orders of the chosen sources are trained "
    "for real, and the planned one (exact) comes…",
    ["first", "in the best quarter", "in the better half", "in the worse half"],
)

# %% [markdown]
# ## Train every order for real
#
# Orders that begin alike share their beginning. First a map, as in 06: one step on each of two
# sources, in both orders, over the target's loss.

# %%
chosen, goal = live.picked(explorer)
a, b = chosen[:2]
objectives = study.sources[a], study.sources[b], study.targets[goal]
plane = gradient_plane((a, b), *objectives, study.theta, rule.lr, points=5)
live.picture(plots.geometry_plane, plane.grid_x, plane.grid_y, plane.loss, plane.path_ab,
             plane.path_ba, (a, b), size=(7.4, 4.6))  # fmt: skip

# %% tags=["nbval-check-output"]
orders = list(itertools.permutations(chosen))
pick = {goal: study.targets[goal]}
losses = lt.run_schedules(study.sources, pick, study.theta, orders, rule.lr).numpy()[:, 0]
guess = language.predicted(t.targets[goal], t.names, orders)
for method in ("exact", "borda"):
    order = language.best_of(t, chosen, goal, method)
    print(f"{method}: {' '.join(order)}: rank {language.rank(order, orders, losses)} "
          f"of {len(orders)}")  # fmt: skip
print(f"correlation of predicted and measured: {np.corrcoef(guess, losses)[0, 1]:.3f}")

# %%
live.show_orders(guess, losses, orders, language.best_of(t, chosen, goal))

# %%
plan = language.best_of(t, chosen, goal)
place = language.rank(plan, orders, losses)
bins = ["first", "in the best quarter", "in the better half", "in the worse half"]
edges = [2, len(orders) // 4 + 1, len(orders) // 2 + 1]
course.reveal("07.rank", bins[np.digitize(place, edges)], f"rank {place} of {len(orders)}")

# %% [markdown]
# **What you just saw.** Each point is one order, trained; both axes count from the mean of all
# orders. The plan knew the start only: gradients and products at the untrained model.
#
# ## Every pair, every target

# %% tags=["nbval-check-output"]
pairs = list(itertools.permutations(names, 2))
both = lt.run_schedules(study.sources, study.targets, study.theta, pairs, rule.lr).numpy()
right = 0
for column, name in enumerate(study.targets):
    truth = dict(zip(pairs, both[:, column], strict=True))
    effect = np.array([[truth[a, b] - truth[b, a] if a != b else 0 for b in names] for a in names])
    hits = int((effect * t.targets[name].numpy() > 0).sum()) // 2
    right += hits
    print(f"target {name}: {hits} of {len(pairs) // 2} signs right")

# %%
share = right / signs
bins = ["fewer", "more than 7 in 10", "more than 9 in 10", "all of them"]
course.reveal("07.signs", bins[np.digitize(share, [0.7, 0.9, 1.0])], f"{share:.0%}")

# %% [markdown]
# ## How much does it matter?

# %% tags=["nbval-check-output"]
start = float(study.targets[goal].loss(study.theta))
progress = abs(start - losses.mean())
difference = losses[orders.index(tuple(plan))] - losses[orders.index(tuple(plan[::-1]))]
print(f"training changes the target's loss by {progress:.1e} nats")
print(f"plan minus reverse:                 {difference:+.1e} nats")
print(f"best to worst of all orders:         {np.ptp(losses):.1e} nats")

# %%
bins = ["a thousandth or less", "about a hundredth", "about a tenth", "about as large"]
ratio = abs(difference) / progress
course.reveal("07.size", bins[np.digitize(ratio, [0.003, 0.03, 0.3])], f"{ratio:.0e}")

# %% [markdown]
# At this step size a stage moves the model very little, and the order of two small moves matters
# less still: lr enters squared. So train on: five steps a source, each five times as long. In the
# local picture the order effect grows like the square of the way.

# %% tags=["nbval-check-output"]
ends = {"start": study.theta}
for label, order in (("plan", plan), ("reverse", plan[::-1])):
    ends[label] = language.train(study, order, 5 * rule.lr, 5)
after = {label: float(study.targets[goal].loss(theta)) for label, theta in ends.items()}
print("loss:", ", ".join(f"{label} {value:.4f}" for label, value in after.items()))
grown = (after["plan"] - after["reverse"]) / difference
print(f"plan minus reverse: {grown:.0f} times that of one short step; "
      f"in the local picture {(5 * 5) ** 2} times")  # fmt: skip

# %%
for row in study.rows[goal][:4]:
    print(repr(row["prompt"]), "should give", repr(row["completion"]))
    for label, theta in ends.items():
        print(f"    {label:8}", repr(language.complete(study, theta, row["prompt"])))

# %% [markdown]
# **What you just saw.** The signs can be right where the text does not change at all: the most
# likely token stays the most likely one while its probability moves a little. Where the factor is
# far from that of the local picture, or negative, that picture has ended, as in notebook 04.
#
# ## The same on SmolLM2-135M
#
# A pretrained model of 135 million parameters, in float32, with twice the rows. This is what the
# cells above printed in that run:

# %% tags=["nbval-check-output"]
course.recorded("07")

# %% [markdown]
# **What you just saw.** The larger model agrees with the lesson: every sign right, and the planned
# order first. It has not been taught these instructions, so its loss moves far more, and so does
# the order effect in nats; as a share of what training does, it is even smaller. After the five
# long steps plan and reverse are well apart, though less than the local picture would have it.
# Look at what the model says before training: it talks about the task and does not know what form
# the answer should have. Much of its loss is form.
#
# ## Exercise
#
# Only the completion counts: mask the prompt. More, up to running every order:
# [`exercises/07_instruction_tuning.ipynb`](../exercises/07_instruction_tuning.ipynb).


# %%
def my_labels(input_ids, attention_mask, prompt_lengths):
    raise NotImplementedError("-100 on the prompt and on padding")


course.check("7.1", my_labels)

# %% [markdown]
# ## Your bets

# %%
course.finish("07")

# %% [markdown]
# **Next.** So far every row had one right answer. In [08 · preferences](08_preferences.ipynb) a row
# has two answers, a better and a worse one, and the loss is that of DPO.
