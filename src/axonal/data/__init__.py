"""Data sets and shipped weights, read without torch."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"  # networks that ship, a folder each
LICENCES = {  # the sources of the data sets, and their licences
    "mnist": "MNIST (LeCun, Cortes, Burges), CC BY-SA 3.0",
    "cifar10": "CIFAR-10 (Krizhevsky 2009)",
    "nmnist": "N-MNIST (Orchard et al. 2015), CC BY-SA 4.0",
    "fsdd": "Free Spoken Digit Dataset (Jackson et al.), CC BY-SA 4.0",
}
