"""What to cite: the works behind the measurements of a run, as BibTeX."""

import json
from collections.abc import Iterable

import xarray as xr

from learnmech import __version__
from learnmech.errors import InputError

WORKS: dict[str, str] = {
    "learnmech": f"""@software{{learnmech,
  title   = {{learnmech: learning mechanics for PyTorch}},
  author  = {{{{The learnmech authors}}}},
  version = {{{__version__}}},
  license = {{Apache-2.0}}
}}""",
    "shi2024": """@article{shi2024spring,
  title         = {A spring-block theory of feature learning in deep neural networks},
  author        = {Shi, Cheng and Pan, Liming and Dokmani{\\'c}, Ivan},
  year          = {2024},
  journal       = {arXiv preprint arXiv:2407.19353},
  eprint        = {2407.19353},
  archivePrefix = {arXiv}
}""",
    "chizat2023": """@inproceedings{chizat2024feature,
  title         = {The feature speed formula: a flexible approach to scale hyper-parameters of deep neural networks},
  author        = {Chizat, L{\\'e}na{\\"i}c and Netrapalli, Praneeth},
  year          = {2024},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {2311.18718},
  archivePrefix = {arXiv}
}""",
    "jacot2024": """@inproceedings{jacot2025hamiltonian,
  title         = {Hamiltonian mechanics of feature learning: bottleneck structure in leaky {ResNets}},
  author        = {Jacot, Arthur and Kaiser, Alexandre},
  year          = {2025},
  booktitle     = {Conference on Parsimony and Learning},
  series        = {Proceedings of Machine Learning Research},
  volume        = {280},
  pages         = {1255--1273},
  eprint        = {2405.17573},
  archivePrefix = {arXiv}
}""",
    "jacot2023bottleneck": """@inproceedings{jacot2023bottleneck,
  title         = {Bottleneck structure in learned features: low-dimension vs regularity tradeoff},
  author        = {Jacot, Arthur},
  year          = {2023},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {2305.19008},
  archivePrefix = {arXiv}
}""",
    "he2023": """@article{he2023law,
  title         = {A law of data separation in deep learning},
  author        = {He, Hangfeng and Su, Weijie J.},
  year          = {2023},
  journal       = {Proceedings of the National Academy of Sciences},
  eprint        = {2210.17020},
  archivePrefix = {arXiv}
}""",
    "kunin2020": """@inproceedings{kunin2021neural,
  title         = {Neural mechanics: symmetry and broken conservation laws in deep learning dynamics},
  author        = {Kunin, Daniel and Sagastuy-Brena, Javier and Ganguli, Surya and Yamins, Daniel L. K. and Tanaka, Hidenori},
  year          = {2021},
  booktitle     = {International Conference on Learning Representations},
  eprint        = {2012.04728},
  archivePrefix = {arXiv}
}""",
    "tanaka2021": """@inproceedings{tanaka2021noether,
  title         = {Noether's learning dynamics: role of symmetry breaking in neural networks},
  author        = {Tanaka, Hidenori and Kunin, Daniel},
  year          = {2021},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {2105.02716},
  archivePrefix = {arXiv}
}""",
    "du2018": """@inproceedings{du2018algorithmic,
  title         = {Algorithmic regularization in learning deep homogeneous models: layers are automatically balanced},
  author        = {Du, Simon S. and Hu, Wei and Lee, Jason D.},
  year          = {2018},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {1806.00900},
  archivePrefix = {arXiv}
}""",
    "kunin2024": """@inproceedings{kunin2024get,
  title         = {Get rich quick: exact solutions reveal how unbalanced initializations promote rapid feature learning},
  author        = {Kunin, Daniel and Ravent{\\'o}s, Allan and Domin{\\'e}, Cl{\\'e}mentine and Chen, Feng and Klindt, David and Saxe, Andrew and Ganguli, Surya},
  year          = {2024},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {2406.06158},
  archivePrefix = {arXiv}
}""",
    "jacot2022": """@article{jacot2021saddle,
  title         = {Saddle-to-saddle dynamics in deep linear networks: small initialization training, symmetry, and sparsity},
  author        = {Jacot, Arthur and Ged, Fran{\\c{c}}ois and {\\c{S}}im{\\c{s}}ek, Berfin and Hongler, Cl{\\'e}ment and Gabriel, Franck},
  year          = {2021},
  journal       = {arXiv preprint arXiv:2106.15933},
  eprint        = {2106.15933},
  archivePrefix = {arXiv}
}""",
    "chizat2019": """@inproceedings{chizat2019lazy,
  title         = {On lazy training in differentiable programming},
  author        = {Chizat, L{\\'e}na{\\"i}c and Oyallon, Edouard and Bach, Francis},
  year          = {2019},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {1812.07956},
  archivePrefix = {arXiv}
}""",
    "kunin2025": """@inproceedings{kunin2025alternating,
  title         = {Alternating gradient flows: a theory of feature learning in two-layer neural networks},
  author        = {Kunin, Daniel and Marchetti, Giovanni Luca and Chen, Feng and Karkada, Dhruva and Simon, James B. and DeWeese, Michael R. and Ganguli, Surya and Miolane, Nina},
  year          = {2025},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {2506.06489},
  archivePrefix = {arXiv}
}""",
    "pesme2023": """@inproceedings{pesme2023saddle,
  title         = {Saddle-to-saddle dynamics in diagonal linear networks},
  author        = {Pesme, Scott and Flammarion, Nicolas},
  year          = {2023},
  booktitle     = {Advances in Neural Information Processing Systems},
  eprint        = {2304.00488},
  archivePrefix = {arXiv}
}""",
    "li2021": """@inproceedings{li2021towards,
  title         = {Towards resolving the implicit bias of gradient descent for matrix factorization: greedy low-rank learning},
  author        = {Li, Zhiyuan and Luo, Yuping and Lyu, Kaifeng},
  year          = {2021},
  booktitle     = {International Conference on Learning Representations},
  eprint        = {2012.09839},
  archivePrefix = {arXiv}
}""",
}


def cite(source: xr.Dataset | str | Iterable[str] | None = None) -> str:
    """Give the BibTeX entries to cite.

    Args:
        source: a history (the works behind its measurements), one key or several (``shi2024``), or None for all.

    Returns:
        BibTeX, learnmech first.

    Raises:
        InputError: for an unknown key.

    Example:
        >>> [line for line in cite("shi2024").splitlines() if line.startswith("@")]
        ['@software{learnmech,', '@article{shi2024spring,']
    """
    if isinstance(source, xr.Dataset):
        named = json.loads(source.attrs.get("citations", "[]"))
        keys = [key for key in named if key in WORKS]  # instruments of the user's own name works unknown here
    elif source is None:
        keys = list(WORKS)
    else:
        keys = [source] if isinstance(source, str) else list(source)
    unknown = [key for key in keys if key not in WORKS]
    if unknown:
        raise InputError(f"unknown works {', '.join(unknown)}; known are {', '.join(WORKS)}.")
    return "\n\n".join(WORKS[key] for key in dict.fromkeys(["learnmech", *keys]))
