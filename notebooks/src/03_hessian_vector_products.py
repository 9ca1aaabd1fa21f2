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
# # 03 · How do you use a Hessian you cannot write down?
#
# The bracket is $H_B\, g_A - H_A\, g_B$. With P parameters a Hessian has P × P entries, too many
# for any real model. But only its product with *one vector* is needed, and that costs a few
# gradients.
#
# **Goal.** Compute $Hv$ in three ways, choose the step of a finite difference, and know what each
# way costs in time and in error.
#
# About 25 minutes. You need the chain rule, and to have seen `backward()`.

# %%
from lietoolkit.course import course, live, lt, metered, np, torch, toys

# %% tags=["parameters"]
profile = "laptop"  # ci, laptop or gpu; this notebook is the same in all of them
seed = 0
device = "auto"

# %%
run = course.setup(globals())

# %% [markdown]
# ## How big is a Hessian?

# %% tags=["nbval-check-output"]
net = toys.networks(1, seed)[0]
theta = toys.network_start(seed)
for name, p in {"this network": theta.numel(), "SmolLM2-135M": 134_515_008}.items():
    print(f"{name:13} {p:11,} parameters; Hessian in float32: {4 * p * p / 1e9:,.4g} GB")

# %% [markdown]
# For the small network we can afford the whole matrix, as a truth to compare with. $\theta$ holds
# all its parameters as one long vector; as the direction $v$ we take the gradient at $\theta$.

# %% tags=["nbval-check-output"]
v = net.gradient(theta)
dense = torch.autograd.functional.hessian(net.fn, theta)
truth = dense @ v
print("symmetric:", bool(torch.allclose(dense, dense.T, atol=1e-10)), "  shape:", list(dense.shape))
print(f"length of v {v.norm():.3f}, of Hv {truth.norm():.3f}")

# %% [markdown]
# ## Three ways
#
# 1. **Finite difference.** $Hv$ is how the gradient changes along $v$. So move a little both ways
#    and subtract: $Hv \approx \frac{g(\theta + \epsilon v) - g(\theta - \epsilon v)}{2\epsilon}$.
# 2. **Double backward.** With $v$ held fixed, $\langle g(\theta), v\rangle$ is a number that
#    depends on $\theta$. Its gradient is $Hv$.
# 3. **Forward over reverse.** Push the direction $v$ through the computation of the gradient: a
#    derivative in forward mode (`jvp`) of one in reverse mode (`grad`).

# %% tags=["nbval-check-output"]
ways = {
    "finite difference": net.gradient_and_hvp(theta, v, "finite-difference")[1],
    "double backward": net.gradient_and_hvp(theta, v, "exact")[1],
    "forward over reverse": torch.func.jvp(torch.func.grad(net.fn), (theta,), (v,))[1],
}
for name, hv in ways.items():
    error = float((hv - truth).norm() / truth.norm())
    print(f"{name:21} right to more than 9 digits: {error < 1e-9}")

# %% [markdown]
# ## Predict

# %%
course.bet(
    "03.step",
    "In float32, how long should ε v be, compared with θ, for the smallest error?",
    ["below 1e-6: as short as can be", "1e-6 to 1e-2: somewhere between", "above 1e-2"],
)

# %%
course.bet(
    "03.bf16",
    "bfloat16 has 3 digits. The best error of a difference in it is about…",
    ["below 0.1%, as in float32", "0.1% to 1%", "above 1%"],
)

# %%
course.bet(
    "03.cost",
    "A gradient and an exact product, by double backward. Counted in gradients, that costs…",
    ["about 2", "3 to 4", "about P, one per row"],
)

# %% [markdown]
# ## Play
#
# 1. With `precision` float32, move `step, relative to θ` from long to short. The error falls, then
#    rises. Why does it fall, and why does it rise again?
# 2. Set `difference` to *central*, then to *one-sided*. Compare the slopes on the right side of the
#    valley.
# 3. With `precision` bfloat16, find the step below which the product is zero: its relative error is
#    then 1. What happened to $\theta + \epsilon v$?

# %%
live.explore_hvp_error(net, theta)

# %% [markdown]
# ## Code: the valley
#
# Too long a step: the gradient bends on the way, an error of order $\epsilon^2$. Too short: both
# gradients agree in nearly all digits, and the subtraction leaves the rounding, of order
# $1/\epsilon$. The valley lies where the two meet.


# %%
def error(step, dtype):
    hv = live.difference(net, theta.to(dtype), v.to(dtype), step)
    return float((hv - truth).norm() / truth.norm())


steps = np.logspace(-9, 0, 28)
curves = {
    dtype: [error(step, dtype) for step in steps]
    for dtype in (torch.float64, torch.float32, torch.bfloat16)
}

# %% tags=["nbval-check-output"]
for dtype, curve in curves.items():
    below = np.ceil(np.log10(3 * min(curve)))
    print(f"{str(dtype)[6:]:9} best error below 1e{below:.0f}")
wide = [error(step, torch.float64) for step in (0.02, 0.01)]
print(f"too long: halving the step divides the error by {wide[0] / wide[1]:.1f}")

# %%
best = steps[int(np.argmin(curves[torch.float32]))]
bins = ["below 1e-6: as short as can be", "1e-6 to 1e-2: somewhere between", "above 1e-2"]
course.reveal("03.step", bins[np.digitize(best, [1e-6, 1e-2])], f"best near {best:.0e}")
least = min(curves[torch.bfloat16])
bins = ["below 0.1%, as in float32", "0.1% to 1%", "above 1%"]
course.reveal("03.bf16", bins[np.digitize(least, [1e-3, 1e-2])], f"{least:.1%}")

# %% [markdown]
# **What you just saw.** A difference is as good as its step. Where the valley lies depends on the
# model; on language models it lies further left. So the package looks for it: `method="auto"`
# compares products at neighboring steps, and takes the exact product where they do not agree.
#
# ## What it costs
#
# The package counts in gradients; one is a forward and a backward pass. After the count, the clock.

# %% tags=["nbval-check-output"]
for method in ("finite-difference", "exact"):
    with metered() as cost:
        net.gradient_and_hvp(theta, v, method)
    print(f"{method:18} gradient and product: {cost.total:.0f} gradients")

# %%
big, at = toys.networks(1, seed, width=512, samples=1024)[0], toys.network_start(seed, width=512)
u = big.gradient(at)
ratios = live.time_ratios(
    {
        "gradient": lambda: big.gradient(at),
        "finite difference": lambda: big.gradient_and_hvp(at, u, "finite-difference"),
        "double backward": lambda: big.gradient_and_hvp(at, u, "exact"),
        "forward over reverse": lambda: torch.func.jvp(torch.func.grad(big.fn), (at,), (u,)),
    },
    reference="gradient",
)
live.show_costs(ratios)

# %%
with metered() as cost:
    net.gradient_and_hvp(theta, v, "exact")
answers = ["about 2", "3 to 4", "about P, one per row"]
truth_is = answers[np.digitize(cost.total, [2.5, 10])]
course.reveal(
    "03.cost", truth_is, f"{cost.total:.0f} counted, {ratios['double backward']:.1f} timed"
)

# %% [markdown]
# **What you just saw.** Neither time nor memory grows with P × P. The times above, each for a
# gradient and a product together, were measured where this page was built; run the cell for yours.
# By the clock an exact product can cost more than its count.
#
# ## One product per source
#
# The score is $\langle g_E, H_B\, g_A\rangle - \langle g_E, H_A\, g_B\rangle$: two products *per
# pair*, it seems. But Hessians are symmetric, so $\langle g_E, H_B\, g_A\rangle = \langle H_B\,
# g_E, g_A\rangle$. One product $H_B\, g_E$ serves B in all its pairs.

# %% tags=["nbval-check-output"]
a, b, target = toys.networks(3, seed)
g_a, g_b, g_e = (loss.gradient(theta) for loss in (a, b, target))
per_pair = g_e @ (b.hvp(theta, g_a) - a.hvp(theta, g_b))
per_source = b.hvp(theta, g_e) @ g_a - a.hvp(theta, g_e) @ g_b
print(f"products per pair:   {float(per_pair):.6f}")
print(f"products per source: {float(per_source):.6f}")
print(f"lt.order_score:      {lt.order_score(a, b, target, theta):.6f}")

# %% [markdown]
# ## Exercise
#
# Write the central difference, with the plain step `eps`. `gradient` is a function:
# `gradient(theta)` is the gradient there. Return $Hv$, a vector as long as `v`. More:
# [`exercises/03_hessian_vector_products.ipynb`](../exercises/03_hessian_vector_products.ipynb).


# %%
def my_hvp(gradient, theta, v, eps):
    raise NotImplementedError("two gradients")


course.check("3.1", my_hvp)

# %% [markdown]
# ## Your bets

# %%
course.finish("03")

# %% [markdown]
# **Next.** Everything is in place: gradients, products, brackets. In
# [04 · the order score](04_order_score.ipynb) we predict which of two sources to train on first,
# and train both orders to see who was right.
