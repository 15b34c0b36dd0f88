"""Train a network and save a checkpoint at each scheduled step: `python create_checkpoints.py`, or `./run checkpoints`."""

from netlapse.cli import checkpoints

if __name__ == "__main__":
    checkpoints()
