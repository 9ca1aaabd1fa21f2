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
# # 01 · Does the order of two moves matter?
#
# Walk, then turn; or turn, then walk. You end in two different places. Training a model on one
# data set and then on another is the same kind of thing, so we start with moves that can be drawn.
#
# **Goal.** From a point, follow one field of arrows and then another, in both orders. At the end
# you can say how far apart the two ends are *before* you move, from one vector: the
# **Lie bracket**.
#
# About 25 minutes. You need derivatives, and no geometry. Run each cell with Shift+Enter.

# %%
from lietoolkit.course import course, fields, live, torch

# %% tags=["parameters"]
profile = "laptop"  # ci, laptop or gpu; this notebook is the same in all of them
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## Fields and flows
#
# A **vector field** puts an arrow at every point: the velocity of whoever stands there. To
# **follow** the field for a time $t$ means to go along with the arrows; the rule "start here, go
# there" is its **flow**. Gradient descent follows such a field, the arrows being $-\nabla L$.
#
# We take two fields from a small gallery of six. The *wind* blows to the right, everywhere alike.
# The *rotation* turns points about the origin. The others: *shear* slides along x, faster the
# higher up; *saddle* stretches along x and shrinks along y; *spread* blows away from the origin;
# *swirl* turns like the rotation, but slower farther out.

# %%
f, g = fields.constant(), fields.rotation()
here = torch.tensor([0.6, 0.8], dtype=torch.float64)
print("arrow of the wind:    ", [round(v, 2) for v in f(here).tolist()])
print("arrow of the rotation:", [round(v, 2) for v in g(here).tolist()])

# %% [markdown]
# ## Predict
#
# Say what you expect, and how sure you are, before you look. At the end you see how well your
# confidence fits. Nothing leaves this machine.

# %%
course.bet(
    "01.halve",
    "Follow f, then g; and g, then f; each for time t. Now halve t. The gap between the two ends…",
    ["stays as it is", "becomes half as long", "becomes a quarter as long", "vanishes"],
)

# %%
course.bet(
    "01.commute",
    "The gallery has six fields, so 15 pairs. In how many pairs does the order not matter at all?",
    ["none", "1 to 3", "4 to 6", "7 or more"],
)

# %% [markdown]
# ## Play
#
# Drag the black cross, or use the sliders. Then:
#
# 1. Move `time t` from 1 down to 0.02. Left, the two ends meet; right, read off how fast.
# 2. Set `field f` to *rotation* and `field g` to *spread*. What happens to the gap?
# 3. The dotted green line *t² [f, g]* predicts the gap; below we see where it comes from. Does
#    it always lead from the end of "g, then f" to the end of "f, then g"? When is it a little off?

# %%
live.explore_flows("wind", "rotation")

# %% [markdown]
# ## Code: the gap
#
# The gap is the end of "f, then g" minus the end of "g, then f". Both flows are exact here.

# %% tags=["nbval-check-output"]
for t in (0.4, 0.2, 0.1, 0.05):
    gap = fields.gap(f, g, here, t)
    print(f"t = {t:<4}  gap {gap.norm():.5f}  gap / t² {gap.norm() / t**2:.3f}")

# %%
ratio = float(fields.gap(f, g, here, 0.1).norm() / fields.gap(f, g, here, 0.05).norm())
answers = {1: "stays as it is", 2: "becomes half as long", 4: "becomes a quarter as long"}
course.reveal("01.halve", answers[round(ratio)], f"it becomes {ratio:.2f} times shorter")

# %% [markdown]
# **What you just saw.** The gap is made of neither move alone: to first order both orders go
# $t f + t g$ away from the start, and that cancels. What is left shrinks like $t^2$, and
# gap$\,/t^2$ settles on a fixed vector.
#
# ## Where that vector comes from
#
# Take tiny straight steps. First f: you are at $x + t f(x)$. There the other field has changed a
# little, to $g(x) + t\,Dg(x) f(x)$, where $Dg$ is the matrix of derivatives of $g$. So
#
# $$\text{f, then g:}\quad x + t f + t g + t^2\, Dg\, f \qquad\qquad
# \text{g, then f:}\quad x + t g + t f + t^2\, Df\, g .$$
#
# The difference is $t^2$ times the **Lie bracket**
#
# $$[f, g] = Dg\, f - Df\, g .$$
#
# In words: how the second field changes along the first, minus how the first changes along the
# second. Swap the two and the sign flips. Here the wind is the same everywhere, so $Df = 0$, and
# the bracket is what the wind does to the rotation's arrow.

# %% tags=["nbval-check-output"]
by_hand = fields.jacobian(g, here) @ f(here) - fields.jacobian(f, here) @ g(here)
bracket = fields.field_bracket(f, g, here)
print("by hand:     ", [round(v, 3) for v in by_hand.tolist()])
print("[f, g]:      ", [round(v, 3) for v in bracket.tolist()])
print("[g, f]:      ", [round(v, 3) for v in fields.field_bracket(g, f, here).tolist()])
print("gap / t²:    ", [round(v, 3) for v in (fields.gap(f, g, here, 0.01) / 0.01**2).tolist()])

# %% [markdown]
# The arrow $t^2[f,g]$ is a prediction, and it has an error. Halve $t$: if the error is of order
# $t^3$, it falls by a factor of eight.

# %% tags=["nbval-check-output"]
errors = [float((fields.gap(f, g, here, t) - t**2 * bracket).norm()) for t in (0.1, 0.05, 0.025)]
print("error:", [f"{e:.1e}" for e in errors])
print(f"halving t divides it by {errors[0] / errors[1]:.1f}, then {errors[1] / errors[2]:.1f}")

# %% [markdown]
# ## When the order does not matter
#
# Two fields **commute** if their bracket is zero everywhere. Then not only the $t^2$ part of the
# gap vanishes, but all of it, at any $t$. We test every pair at a few random points.

# %% tags=["nbval-check-output"]
points = torch.randn(5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
names = list(fields.GALLERY)
pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]


def commute(a, b):
    one, two = fields.GALLERY[a](), fields.GALLERY[b]()
    return all(fields.field_bracket(one, two, x).norm() < 1e-12 for x in points)


together = [pair for pair in pairs if commute(*pair)]
print(len(pairs), "pairs;", len(together), "commute:")
print("\n".join(f"  {a} and {b}" for a, b in together))

# %%
bins = {"none": range(1), "1 to 3": range(1, 4), "4 to 6": range(4, 7), "7 or more": range(7, 16)}
truth = next(text for text, numbers in bins.items() if len(together) in numbers)
course.reveal("01.commute", truth, f"{len(together)} of {len(pairs)} pairs")

# %% [markdown]
# **What you just saw.** *Spread* is a zoom about the origin: it commutes with every linear field,
# one of the form $Mx$ with a matrix $M$. Commuting is the exception, and it always has a reason you
# can name. Try to name it for *wind* and *shear*.
#
# ## A direction that neither move has
#
# A car has two moves: *drive* (straight ahead, or back) and *steer* (change the heading). Neither
# goes sideways.

# %%
course.bet(
    "01.park",
    "Drive, steer, drive back, steer back, again and again. Where does the car end?",
    ["where it began", "ahead or behind", "to its side, heading as before", "turned round"],
)

# %%
live.explore_parking()

# %% [markdown]
# A point is now $(x, y, \text{heading})$. We compute the bracket at heading 0, and one round of the
# four moves.

# %% tags=["nbval-check-output"]
drive, steer = fields.drive(), fields.steer()
parked = torch.zeros(3, dtype=torch.float64)
sideways = fields.field_bracket(drive, steer, parked)
print("[drive, steer]: ", [round(v, 3) + 0.0 for v in sideways.tolist()])
for t in (0.4, 0.2, 0.1):
    moved = fields.loop(drive, steer, parked, t)
    print(f"one round, t = {t}: moved / t² =", [round(v, 2) + 0.0 for v in (moved / t**2).tolist()])

# %%
ahead, side, turned = fields.loop(drive, steer, parked, 0.1).abs().tolist()
shifted = side > 10 * ahead and turned < 1e-9
truth = "to its side, heading as before" if shifted else "ahead or behind"
course.reveal("01.park", truth, f"{side:.4f} to the side, {ahead:.4f} ahead, turned {turned:.4f}")

# %% [markdown]
# **What you just saw.** The bracket of drive and steer is *sideways*, a direction in which neither
# field has an arrow. That is parallel parking. It costs: time $4t$ buys a shift of only $t^2$.
#
# ## Exercise
#
# Write the bracket yourself: put your code in place of the `raise` line and return $[f, g]$ at the
# one point `x`, a vector as long as `x`. `fields.jacobian(f, x)` is $Df$ at $x$. An untouched stub
# is fine; run the check when you have something. More, with drawings:
# [`exercises/01_flows_and_brackets.ipynb`](../exercises/01_flows_and_brackets.ipynb).


# %%
def my_bracket(f, g, x):
    raise NotImplementedError("Dg f - Df g")


course.check("1.3", my_bracket)

# %%
course.hint("1.3")

# %% [markdown]
# ## Your bets

# %%
course.finish("01")

# %% [markdown]
# **Next.** A data set is a field as well: at every point of parameter space an arrow, minus the
# gradient of its loss. Training on it is to follow the flow. So A and then B leaves a gap to B and
# then A, and its first part is a bracket. In [02 · gradient fields](02_gradient_fields.ipynb) we
# see what it is made of: gradients and curvature.
