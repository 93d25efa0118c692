"""Watch a plain PyTorch loop: which layers of a small net separate handwritten digits.

Run: python examples/quickstart.py [FOLDER]. The report goes to FOLDER, or to a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import learnmech as lm

torch.set_num_threads(1)
torch.manual_seed(0)

digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
y = torch.tensor(digits.target)
train_x, train_y, test_x, test_y = x[:1300], y[:1300], x[1300:], y[1300:]

layers = []
for width_in in (64, 100, 100, 100, 100):
    layers += [nn.Linear(width_in, 100), nn.BatchNorm1d(100), nn.ReLU()]
model = nn.Sequential(nn.BatchNorm1d(64), *layers, nn.Linear(100, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

with lm.watch(
    model,
    (train_x, train_y),
    functional.cross_entropy,
    optimizer=optimizer,
    every=20,
    held_out=(test_x, test_y),
    config={"data": "digits", "batch_size": 128, "seed": 0},
) as monitor:
    for _ in range(15):
        for batch in torch.randperm(len(train_x)).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()

print(monitor.verdict())
model.eval()
print(f"\ntest accuracy {(model(test_x).argmax(1) == test_y).float().mean():.3f}")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
print("report:", monitor.report(folder / "report.html"))
