"""How anything is trained, once: mesh, optimiser, state, checkpoints, log and the loop. What is
trained is a task.
"""
