"""Leaky ResNets that classify handwritten digits: as the effective depth grows, a bottleneck appears inside the net.

Run: python examples/leaky_digits.py [FOLDER]. The figure goes to FOLDER, or to a temporary folder. Takes under a minute.

A leaky ResNet forgets: each step scales its features down, and the weights must put back what is to be kept. The deeper it
is (``effective_depth``), the more a direction costs, and the fewer are kept in the middle.
"""

import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

import learnmech as lm
from learnmech import leaky

torch.set_num_threads(1)
torch.manual_seed(0)
EFFECTIVE_DEPTHS = (1.5, 4.0, 8.0)

# The images on their 20 leading principal components, with one scale for all.
digits = lm.data.load("digits", train_samples=600).flatten()
centre = digits.train_inputs.mean(0)
axes = torch.linalg.svd(digits.train_inputs - centre, full_matrices=False).Vh[:20].T
train_x, test_x = (digits.train_inputs - centre) @ axes, (digits.test_inputs - centre) @ axes
scale = train_x.square().mean().sqrt()
train_x, test_x = train_x / scale, test_x / scale

# One net for each effective depth, trained as one computation: Adam on batches, then L-BFGS to a critical point.
nets = [
    leaky.LeakyResNet(20, 10, width=32, effective_depth=depth, layers=12, penalty=0.01, loss="cross_entropy").double()
    for depth in EFFECTIVE_DEPTHS
]
settings = leaky.LeakySettings(adam_steps=1000, batch_size=200, polish_iterations=150)
results = leaky.train_members(nets, train_x, digits.train_targets, settings)

figure = make_subplots(
    2,
    len(nets),
    shared_xaxes=True,
    shared_yaxes=True,
    vertical_spacing=0.06,
    column_titles=[f"effective depth {depth:g}" for depth in EFFECTIVE_DEPTHS],
    x_title="depth (0 input, 1 output)",
)
print("effective depth  test accuracy  narrowest at  identity cost  directions kept  effective dimension  residual")
for column, (net, result) in enumerate(zip(nets, results, strict=True), start=1):
    run = leaky.profile(net, train_x, digits.train_targets, ridges=1e-3, relative=True)
    depth, cost = run["depth"].values, run["identity_cost"].values[:, 0]
    narrowest = int(cost[:-1].argmin())
    kept = int(run["kept_directions"][narrowest])
    accuracy = (net(test_x.double()).argmax(1) == digits.test_targets).double().mean()
    print(
        f"{net.effective_depth:15g}{accuracy:15.3f}{depth[narrowest]:14.2f}{cost[narrowest]:15.1f}{kept:17d}"
        f"{run['pre_effective_dimension'].median():21.1f}{result.residual:10.2f}"
    )
    figure.add_scatter(x=depth, y=cost, line={"color": "#1b6ca8"}, row=1, col=column)
    figure.add_scatter(
        x=[depth[narrowest]],
        y=[cost[narrowest]],
        mode="markers+text",
        text=[f"{cost[narrowest]:.1f}"],
        textposition="top center",
        marker={"color": "#d1495b", "symbol": "triangle-down", "size": 11},
        row=1,
        col=column,
    )
    for number, values in enumerate(run["weight_spectrum"].values.T[:12]):
        line = {"color": "#1b6ca8" if number < kept else "#9aa5b1", "width": 1.5}
        figure.add_trace(go.Scatter(x=depth, y=values, mode="lines", line=line), row=2, col=column)
    figure.add_hline(
        net.effective_depth, line={"dash": "dot", "width": 1}, annotation_text="effective depth", row=2, col=column
    )
figure.update_yaxes(type="log", dtick=1, row=1)
figure.update_yaxes(title_text="identity cost (dimensions)", row=1, col=1)
figure.update_yaxes(title_text="singular values of W", row=2, col=1)
figure.update_layout(
    template="plotly_white",
    showlegend=False,
    height=640,
    width=980,
    title_text="Digits: how many dimensions the features have (top), and what the weights keep (bottom, blue)",
)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
path = folder / "leaky_digits.html"
figure.write_html(path, include_plotlyjs=True)
print("\nThe deeper the net, the narrower its middle. A kept direction needs a singular value of the effective depth.")
print("figure:", path)
