"""Endless, seeded pictures with exact truth, in the very prompts and answer formats of the tasks.

sample.py    what a sample is: messages, answer, truth, marks
sides.py     the held-out side by construction: fonts, words, names, layouts, themes, seeds
registry.py  all tasks by name; make_sample(name, side, seed, index)
"""
