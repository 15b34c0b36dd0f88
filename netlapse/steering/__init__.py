"""Steering a training from outside: commands, how they travel, and how they are answered.

A command is put where the training's record is, in the tags of its MLflow run or in files of its folder, and found there by a thread
beside the training (`inbox`). What it does to a training is in `netlapse.callbacks`; nothing here knows a framework.
"""
