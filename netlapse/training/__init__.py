"""The trainings that `train.py` and `create_checkpoints.py` run, one file per framework."""
