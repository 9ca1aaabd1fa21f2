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
# # In which order should a model learn?
#
# You have a model and several data sets to train it on. The order changes the result. This course
# shows why, and how to predict a good order *before* any training, from gradients and curvature.
#
# Start at 01 and go down. Each notebook asks one question. In each you **predict**, **play** with a
# live figure, read a little **code**, see **what happened**, and try an **exercise**. You need
# gradient descent and a bit of Python; no geometry.

# %%
from lietoolkit.course import course

course.contents()

# %% [markdown]
# ## How to go through it
#
# - Run a cell with Shift+Enter. Figures come alive once their cell has run; before that they are
#   pictures. Every control works with the keyboard: Tab to reach it, arrow keys to move it.
# - **Bets** keep you honest. You say what you expect and how sure you are; later you see the truth
#   and your score. They are stored on this machine and nowhere else. In a terminal,
#   `lietoolkit course progress` shows them and `lietoolkit course reset` forgets them.
# - **Exercises** check themselves and name the likely mistake. They are in the folder `exercises`;
#   the table above links to them.
# - Stuck in a cell? *Kernel → Restart kernel and run up to selected cell* brings you back.
#
# Your bets so far:

# %%
print(course.summary())
