"""Watch a network of your own: a small transformer that names, at every token, the token before it.

A token alone says nothing about the one before it, so the classes are not separated in the embedding; the attention of some
block has to fetch the answer, and the load curve shows which ones. That the early blocks do it is how this task is, not a
fault: the advice of the verdict was established on nets that classify images.

Run: python examples/own_transformer.py [FOLDER]. The report goes to FOLDER, or to a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import learnmech as lm

VOCABULARY, TOKENS, WIDTH, HEADS, DEPTH = 8, 12, 32, 2, 4


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to earlier tokens, then transform each; x has shape (batch, tokens, width)."""
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, tokens, WIDTH))
        return x + self.mlp(self.norm2(x))


class TokenClassifier(nn.Module):
    """Embedding, blocks, and a linear read-out at every token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.place = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        """Give logits of shape (batch, tokens, classes)."""
        x = self.embed(ids) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the mean cross-entropy over all tokens with a label."""
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def draw(samples: int) -> tuple[Tensor, Tensor]:
    """Draw sequences; the label of a token is the token before it, and -100 (left out) at the first."""
    ids = torch.randint(VOCABULARY, (samples, TOKENS))
    labels = ids.roll(1, 1)
    labels[:, 0] = -100
    return ids, labels


torch.set_num_threads(1)
torch.manual_seed(0)
model = TokenClassifier()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

with lm.watch(model, draw(128), token_loss, optimizer=optimizer, every=25) as monitor:
    print(monitor.layers, end="\n\n")
    for _ in range(200):
        ids, labels = draw(64)
        optimizer.zero_grad()
        token_loss(model(ids), labels).backward()
        optimizer.step()

print(monitor.verdict())
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
print("report:", monitor.report(folder / "report.html"))
