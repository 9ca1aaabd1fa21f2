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
# # 09 · How far does a prediction hold?
#
# The order score is a derivative at the start. People train for many steps, with momentum or AdamW:
# optimizers that remember the gradients of earlier steps. Somewhere on the way from one small step
# to a real run the prediction ends. Where? And what can be put in its place?
#
# **Goal.** Know where the local score is a coin toss, predict beyond that by following the stages
# themselves, know what that costs, and know what a confidence says.
#
# About 40 minutes. You need notebooks 04 and 05.

# %%
from lietoolkit.course import course, live, lt, metered, np, torch, toys, transported_effect

# %% tags=["parameters"]
profile = "laptop"  # ci, laptop or gpu; this notebook is the same in all of them
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## One pair, longer and longer
#
# A **stage** is $k$ steps on one source. We train both orders of two stages, and predict the
# difference in three ways:
#
# - **local**: $(k\, lr)^2 \sigma_{AB}$, from the start alone;
# - **transported**: the same bracket, but added up along the way that both sources go together,
#   with the target's gradient $\lambda$ at its end carried back. With $t = k\, lr$,
#
# $$\Delta_{AB} \approx t^2 \int_0^1 \langle \lambda(s),\; b_{AB}(\theta(s)) \rangle\, ds,$$
#
# where $\Delta_{AB}$ is the order effect, $\theta(s)$ the place after the share $s$ of the way, and
# $\lambda(s)$ the gradient carried back to it;
#
# - **stage**: no small steps are assumed; more on this one below.

# %% tags=["nbval-check-output"]
torch.set_num_threads(1)  # losses this small: threads would only wait for each other
*nets, target = toys.regressions(6, seed)
sources, theta = {net.name: net for net in nets}, toys.network_start(seed)
rule = lt.step_size(sources, theta)
lr = 3.5 * rule.lr
print(f"lr × curvature = {3.5 * rule.eta_lambda_max:.2f}; A then B minus B then A:")
for k in (1, 5, 20, 50):
    case = (nets[0], nets[1], target, theta, lr, k)
    print(f"{k:2} steps: measured {lt.measure_order_effect(*case):+.4f}, "
          f"local {lt.predict_order_effect(*case):+7.4f}, "
          f"transported {transported_effect(*case):+.4f}, "
          f"stage {lt.predict_order_effect(*case, method='stage'):+.4f}")  # fmt: skip

# %% [markdown]
# ## Predict
#
# Now many pairs, targets and starts. "Best solo last" is what one would do without any geometry:
# train each source alone, and put what helped most at the end. To **resample** a source is to draw
# from its own rows again, some twice and some not at all; a score can then be formed anew.

# %%
course.bet(
    "09.local",
    "Plain SGD, lr × curvature 0.35, 50 steps a stage. The local score gets this share of the "
    "signs right:",
    ["over 90%", "70 to 90%", "under 70%: little better than a coin"],
)

# %%
course.bet(
    "09.solo",
    "AdamW, one step a stage. The share of signs that 'best solo last' gets right is…",
    ["over 70%", "30 to 70%", "under 30%: the reverse would be better"],
)

# %%
course.bet(
    "09.sure",
    "Take the signs of the local score that survive 95% of resamples. After 50 steps, the share of "
    "them that is right is…",
    ["over 90%", "75 to 90%", "under 75%"],
)

# %% [markdown]
# ## Play
#
# `horizon_effects` trains every pair in both orders, for six numbers of steps, three step sizes and
# three optimizers, and predicts each. It takes about half a minute.
#
# 1. With SGD, move `steps k` from 1 to 50. Which method falls first? Which ones stay?
# 2. Lower `step size, usual = 1` to a quarter: a step four times shorter. How many steps does the
#    local score gain?
# 3. Set `trained with` to *adamw*. Watch *best solo last* at one step, and at 50.
# 4. Set `left: prediction` to *local*, then to *stage*, at 50 steps. What is wrong, the sign or
#    also the size? Points beyond the frame sit on its edge.

# %%
effects = live.horizon_effects(seed=seed)
live.explore_horizon(effects)

# %% tags=["nbval-check-output"]
usual = effects.sizes.index(1)


def table(optimizer, methods):
    print(f"{optimizer}, signs right of {effects.decisions}, k = {effects.steps}")
    for method in methods:
        right = effects.signs_right(optimizer, method)[:, usual]
        print(f"{method:15}" + "".join(f"{n:4}" for n in right))


table("sgd", ["local", "trotter", "transported", "stage", "best solo last"])

# %%
share = effects.signs_right("sgd", "local")[-1, usual] / effects.decisions
bins = ["under 70%: little better than a coin", "70 to 90%", "over 90%"]
course.reveal("09.local", bins[np.digitize(share, [0.7, 0.9])], f"{share:.0%}")

# %% [markdown]
# **What you just saw.** The bracket is not wrong at long horizons; the *place* where it is read is.
# Carried along the way, it keeps most signs. *Best solo last* is poor for short runs. For long
# ones, where the source trained last decides, it is nearly as good as anything here, for N stages:
# always hold a method against it. The intervals on the right of the figure are for independent
# decisions; these share sources and starts, so less is known than they say.
#
# ## The stage commutator
#
# The transported bracket describes smooth flows of plain SGD. For any optimizer, take the stage
# itself, $\Phi_i$: a map from state to state, where a state is the parameters with the optimizer's
# memory. Train each source alone from the start $z_0$: solo ends $z_i = \Phi_i(z_0)$. Train each
# once more, from the mean $\bar{z}_i$ of the *others'* solo ends: second ends
# $e_i = \Phi_i(\bar{z}_i)$. With $\lambda$ the target's gradient at the mean of these,
#
# $$\Delta_{ij} \approx \langle \lambda,\, e_j - e_i \rangle
# + \langle w_j,\, z_i - \bar{z}_j \rangle - \langle w_i,\, z_j - \bar{z}_i \rangle .$$
#
# $w_i$ is $\lambda$ carried back over the second stage, one Hessian-vector product a step: for SGD
# $\lambda \leftarrow \lambda - lr\, H \lambda$, from the last step to the first. In words: the
# first term asks who ends lower after the others; the other two, how much of the first stage's
# move is left after the second. The package adds two things that cost no step: it repeats the
# updates of the second stage from each $z_i$ itself, where AdamW's memory is a real one, and it
# reads the target's loss for every pair near where that repetition ends.

# %% tags=["nbval-check-output"]
for optimizer in ("momentum", "adamw"):
    table(optimizer, ["local", "stage", "best solo last"])

# %%
share = effects.signs_right("adamw", "best solo last")[0, usual] / effects.decisions
bins = ["under 30%: the reverse would be better", "30 to 70%", "over 70%"]
course.reveal("09.solo", bins[np.digitize(share, [0.3, 0.7])], f"{share:.0%}")

# %% [markdown]
# **What you just saw.** With momentum or AdamW the first stage fills the optimizer's memory and
# goes on pushing during the second. For a few steps that is the whole order effect, and the local
# score, which knows no memory, cannot see it. Does it even grow like $k^2$?

# %% tags=["nbval-check-output"]
for optimizer in effects.measured:
    size = np.abs(effects.measured[optimizer]).mean(-1)[:, 0]
    slope = np.diff(np.log(size)) / np.diff(np.log(effects.steps))
    print(f"{optimizer:9} short steps, slope against k: " + " ".join(f"{s:5.2f}" for s in slope))

# %% [markdown]
# Slope 2 is the $k^2$ law. Even with short steps SGD is below it from the start and falls further.
# AdamW's effects grow about like $k$. With momentum they follow no single power.
#
# ## What it costs
#
# In gradients; an exact product counts as two. Training all pairs for real takes $N^2$ stages.

# %% tags=["nbval-check-output"]
k, pair = 20, (nets[0], nets[1], target, theta, lr, 20)
with metered() as truth:
    lt.measure_order_effect(*pair)
with metered() as predicted:
    lt.predict_order_effect(*pair, method="stage")
with metered() as carried:
    transported_effect(*pair)
losses = len(nets) * (len(nets) - 1) / 3  # of the target, one an ordered pair
each = (lt.tournament(sources, target, theta, lr, k, "stage").cost.total - losses) / len(nets)
print(f"one pair, {k} steps: training both orders {truth.total:.0f}, "
      f"transported {carried.total:.0f}, stage {predicted.total:.0f}")  # fmt: skip
for n in (5, 10, 24):
    stage = n * each + n * (n - 1) / 3
    print(f"{n:2} sources: training all pairs {n * n * k:6}, stage {stage:6.0f}")

# %% [markdown]
# For a single pair, and for a handful of sources, train them: that is cheaper *and* it is the
# truth. The transported bracket is for understanding only: its cost grows with the pairs. The stage
# commutator's grows with the sources, and so it pays for many of them. A further target costs it
# k more products a source and a loss a pair; the truth reads it off with one loss an order.
#
# ## What a confidence says
#
# Resample each source, form the score again, and do so many times: how often does a sign survive?
# We hold that against three truths, one step each but for the last: trained on the *same rows*, on
# *other rows* of the same sources, and on the same rows for 50 steps.

# %%
study = live.confidence_study(seed=seed)
live.show_confidence(study)

# %% tags=["nbval-check-output"]
for low, high in ((0.5, 0.8), (0.8, 0.95), (0.95, 2)):
    group = study.group(low, high)
    shares = ", ".join(f"{name} {right[group].mean():.0%}" for name, right in study.right.items())
    print(f"survival from {low:.0%}: {group.sum():3} signs; right: {shares}")

# %%
share = study.right["50 steps"][study.group(0.95, 2)].mean()
bins = ["under 75%", "75 to 90%", "over 90%"]
course.reveal("09.sure", bins[np.digitize(share, [0.75, 0.9])], f"{share:.0%}")

# %% [markdown]
# **What you just saw.** Survival is about *rows*: it says how likely the sign is to hold for
# another sample of the same sources, and there it is worth reading. On the very rows it was
# computed from, nearly every sign is right anyway. About the horizon it knows nothing: a sign can
# survive every resample and be wrong after 50 steps. So the *chance* that `lt.plan_order` states is
# another number: it grows with the size of an effect, falls with the distance travelled, and was
# fitted to pairs trained for real.
#
# ## Exercise
#
# A stage of plain SGD in reverse: the one new piece of the stage commutator. `path` lists the
# parameters before each step, first to last; `cotangent` is $\lambda$ at the end of the stage;
# `source.hvp(theta, v)` is $Hv$. Return $\lambda$ at the start of the stage. More, up to the whole
# of it: [`exercises/09_horizon.ipynb`](../exercises/09_horizon.ipynb).


# %%
def my_reverse(source, path, cotangent, lr):
    raise NotImplementedError("one product a step; which step comes first?")


course.check("9.2", my_reverse)

# %%
course.hint("9.2")

# %% [markdown]
# ## Your bets

# %%
course.finish("09")

# %% [markdown]
# **Next.** Even if every pair were known for certain: is a whole schedule the sum of its pairs? In
# [10 · whole schedules](10_whole_schedules.ipynb) it is not, and something else works.
