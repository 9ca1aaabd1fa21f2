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
# # 02 · What makes the order of two losses matter?
#
# Training follows minus the gradient. Two data sets give two losses, two gradients, and so two
# fields: everything from notebook 01 applies. Now we can say what the bracket is made of.
#
# **Goal.** Compute the gap between "A, then B" and "B, then A" from two gradients and two
# curvatures, say when it is zero, and turn it into one number: what the order does to the loss you
# care about.
#
# About 25 minutes. You need gradient descent and 2×2 matrices.

# %%
from lietoolkit.course import course, fields, live, lt, torch, toys

# %% tags=["parameters"]
profile = "laptop"  # ci, laptop or gpu; this notebook is the same in all of them
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## Two bowls
#
# The simplest loss is a quadratic bowl, $L(x) = \frac{1}{2} (x - c)^\top H (x - c)$: its gradient
# is $g = H(x - c)$, its matrix of second derivatives (the **Hessian**) is $H$ everywhere. Ours are
# stiff along one axis and soft along the other: curvature 5 (the `stiffness`) and 1. Both have
# their minimum at the origin; bowl B is turned by 35°.

# %%
a = toys.bowl(stiffness=5.0, angle=0, name="A")
b = toys.bowl(stiffness=5.0, angle=35, name="B")
theta = torch.tensor([1.4, 0.9], dtype=torch.float64)
print("gradient of A:", [round(v, 2) for v in a.gradient(theta).tolist()])
print("gradient of B:", [round(v, 2) for v in b.gradient(theta).tolist()])

# %% [markdown]
# ## Predict

# %%
course.bet(
    "02.exact",
    "One gradient step on A, one on B, in both orders. lr² times the bracket gives the gap…",
    ["exactly", "up to an error of order lr³", "only its direction"],
)

# %%
course.bet(
    "02.angle",
    "Both minima are at the origin. At which angle between the bowls is the gap longest?",
    ["0°: side by side", "about 45°", "90°: crossed"],
)

# %% [markdown]
# ## Play
#
# Left, the two ends and the gap. Right, the **order effect**: the loss of a third bowl, the target
# (its minimum is the star), after "A, then B" minus that after "B, then A". More on it below.
#
# 1. Move `angle between the bowls`. Where does the black curve on the right cross zero? Look at the
#    bowls there.
# 2. Set `stiffness` to 1: both bowls are round. What is left of the order effect?
# 3. Set `stiffness` back to 5 and the angle to 0, and raise `distance of the minima`. Is the order
#    effect still zero?
# 4. Lower `step size lr`. When do the two curves on the right become one?

# %%
live.explore_bowls()

# %% [markdown]
# ## Code: the gap of two steps
#
# The field of a loss is $f = -g$. Put that into $[f_A, f_B] = Df_B\, f_A - Df_A\, f_B$. The
# derivative of a gradient is the Hessian, and the two minus signs cancel:
#
# $$b_{AB} = [f_A, f_B] = H_B\, g_A - H_A\, g_B .$$
#
# In words: what a step on A takes off B's gradient, minus what a step on B takes off A's.

# %% tags=["nbval-check-output"]
h_a, h_b = toys.bowl_hessian(5.0, 0), toys.bowl_hessian(5.0, 35)
by_hand = h_b @ a.gradient(theta) - h_a @ b.gradient(theta)
bracket = lt.lie_bracket(a, b, theta)
of_fields = fields.field_bracket(fields.gradient_field(a), fields.gradient_field(b), theta)
for name, v in {"by hand": by_hand, "lt.lie_bracket": bracket, "of the fields": of_fields}.items():
    print(f"{name:15}", [round(x, 3) for x in v.tolist()])


# %% tags=["nbval-check-output"]
def two_steps(first, second, lr):
    middle = theta - lr * first.gradient(theta)
    return middle - lr * second.gradient(middle)


for lr in (0.2, 0.02):
    gap = two_steps(a, b, lr) - two_steps(b, a, lr)
    error = float((gap - lr**2 * bracket).norm() / gap.norm())
    print(f"lr {lr}: gap {gap.norm():.5f}; lr² × bracket agrees to 12 digits: {error < 1e-12}")

# %%
course.reveal("02.exact", "exactly" if error < 1e-9 else "up to an error of order lr³")

# %% [markdown]
# **What you just saw.** For two straight steps on two quadratics there is no third-order term: a
# gradient of a quadratic is linear, so it changes along a step by exactly $H$ times the step. For
# other losses $lr^2 b_{AB}$ is the first term, and the rest is of order $lr^3$.
#
# ## When is it zero?
#
# With both minima at $c$, the gradients are $H_A (x-c)$ and $H_B (x-c)$, so
#
# $$b_{AB} = (H_B H_A - H_A H_B)\,(x - c).$$
#
# The order does not matter exactly when the two matrices **commute**: when they share their axes.

# %% tags=["nbval-check-output"]
lengths = {}
for angle in (0, 15, 30, 45, 60, 75, 90):
    turned = toys.bowl(stiffness=5.0, angle=angle)
    lengths[angle] = float(lt.lie_bracket(a, turned, theta).norm())
    print(f"{angle:2}°  length of the bracket {lengths[angle]:6.3f}")

# %%
longest = max(lengths, key=lengths.get)
names = {0: "0°: side by side", 90: "90°: crossed"}
course.reveal("02.angle", names.get(longest, "about 45°"), f"longest at {longest}°")

# %% [markdown]
# Now the minima lie apart, and the bowls are side by side: the matrices commute.

# %%
course.bet(
    "02.apart",
    "Two bowls of the same shape and direction, minima 1 apart. Does the order matter?",
    ["yes", "no"],
)

# %% tags=["nbval-check-output"]
left = toys.bowl((-0.5, 0.0), stiffness=5.0)
right = toys.bowl((0.5, 0.0), stiffness=5.0)
apart = lt.lie_bracket(left, right, theta)
print("bracket:            ", [round(v, 3) for v in apart.tolist()])
from_a_to_b = torch.tensor([1.0, 0.0], dtype=torch.float64)
print("H_A H_B (c_B - c_A):", [round(v, 3) for v in (h_a @ h_a @ from_a_to_b).tolist()])

# %%
course.reveal("02.apart", "yes" if apart.norm() > 1e-9 else "no", f"length {apart.norm():.2f}")

# %% [markdown]
# **What you just saw.** Order matters for two reasons: the losses pull to *different places*, and
# they are *curved along different axes*. In the first case the bracket is
# $H_B H_A (x - c_A) - H_A H_B (x - c_B)$; the matrices commute, so $x$ drops out, and
# $H_A H_B (c_B - c_A)$ is left. Here it points from A's minimum towards B's: after "A, then B" you
# are nearer to B, which had the last word.
#
# ## From a gap to a number
#
# A gap is a vector; we care about a loss, that of a **target** $E$: a test set, say. Along the gap
# the target's loss changes by its gradient times the gap. So the **order effect** is
#
# $$L_E(A \to B) - L_E(B \to A) \approx lr^2\, \sigma_{AB}, \qquad
# \sigma_{AB} = \langle g_E,\, b_{AB}\rangle .$$
#
# Here $L_E(A \to B)$ is the target's loss after "A, then B", and $\langle\cdot,\cdot\rangle$ is the
# dot product. **Negative means: A first is better.** $\sigma$ is the *order score*.

# %% tags=["nbval-check-output"]
target = toys.bowl((-0.8, 1.2), stiffness=1.0)
score = lt.order_score(a, b, target, theta)
print(f"order score {score:.3f}:", "A first" if score < 0 else "B first")
for lr in (0.1, 0.05, 0.025):
    measured = lt.measure_order_effect(a, b, target, theta, lr=lr)
    print(f"lr {lr:<5}  measured {measured:.5f}  predicted {lr**2 * score:.5f}"
          f"  ratio {measured / (lr**2 * score):.3f}")  # fmt: skip

# %% [markdown]
# **What you just saw.** The gap was exact, the order effect is not: the target's gradient is read
# at the start, while the two ends lie two steps away. The ratio goes to 1 as lr goes to 0. In
# notebook 04 we do better.
#
# ## Exercise
#
# Write the bracket $[f_A, f_B]$ of two bowls at `x` from their Hessians and centers. Return a
# vector as long as `x`. More:
# [`exercises/02_gradient_fields.ipynb`](../exercises/02_gradient_fields.ipynb).


# %%
def my_bracket(H_a, c_a, H_b, c_b, x):
    raise NotImplementedError("H_b g_a - H_a g_b")


course.check("2.2", my_bracket)

# %%
course.hint("2.2")

# %% [markdown]
# ## Your bets

# %%
course.finish("02")

# %% [markdown]
# **Next.** A bracket needs Hessians, and a model with $10^8$ parameters has a Hessian with
# $10^{16}$ entries. We never write it down. In
# [03 · curvature without matrices](03_hessian_vector_products.ipynb) we get $H v$ for the price of
# two or three gradients.
