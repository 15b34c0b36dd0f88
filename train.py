"""Train a network and observe it while it learns: `python train.py`, or `./run train`."""

from netlapse.cli import train

if __name__ == "__main__":
    train()
