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

# %% [markdown] tags=["notebook-only"]
# # In which order to train
#
# The report on one plan. `lietoolkit report` runs this notebook and turns it into one HTML page;
# you can also run it here: set `plan` to your own `plan.json` and choose *Run All Cells*.

# %%
from lietoolkit import report

# %% tags=["parameters"]
plan = "plan.json"  # what `lietoolkit plan` wrote
title = ""  # heading of the report; empty for the standard one
dpi = 110  # resolution of the figures

# %%
settings = report.check_parameters(globals())
data = report.read_plan(settings["plan"])

# %% [markdown] tags=["notebook-only"]
# ## The order, and how sure

# %%
report.show(report.headline(data, title=title, dpi=dpi))

# %% [markdown]
# ## What the order gains or loses against its reverse

# %%
report.show(report.against_reverse(data))

# %% [markdown]
# ## Every pair of sources

# %%
report.show(report.pairs(data, dpi=dpi))

# %% [markdown]
# ## Try another order
#
# Move the sources and see what the prediction says about each target. Each number is a predicted
# difference in loss from the planned order; negative is better.

# %%
report.show(report.explorer(data))

# %% [markdown]
# ## The trade-off: targets, and what is forgotten

# %%
report.show(report.tradeoff(data, dpi=dpi))

# %% [markdown]
# ## Why order matters: the gap that does not close

# %%
report.show(report.geometry(data, dpi=dpi))

# %% [markdown]
# ## Predicted against measured

# %%
report.show(report.verification(data, dpi=dpi))

# %% [markdown]
# ## Limits of this plan

# %%
report.show(report.limits_section(data))

# %% [markdown]
# ## Settings, versions, cost

# %%
report.show(report.settings(data))
