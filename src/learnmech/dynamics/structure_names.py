"""Names of torch functions by what they do to scalings."""

STRUCTURAL = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "ravel",
        "permute",
        "transpose",
        "swapaxes",
        "swapdims",
        "movedim",
        "moveaxis",
        "t",
        "T",
        "mT",
        "contiguous",
        "clone",
        "unsqueeze",
        "squeeze",
        "expand",
        "expand_as",
        "broadcast_to",
        "view_as",
        "reshape_as",
        "repeat",
        "repeat_interleave",
        "tile",
        "chunk",
        "split",
        "split_with_sizes",
        "tensor_split",
        "unbind",
        "narrow",
        "select",
        "__getitem__",
        "index_select",
        "flip",
        "roll",
        "cat",
        "concat",
        "concatenate",
        "stack",
        "hstack",
        "vstack",
        "dstack",
        "unfold",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
        "positive",
        "tril",
        "triu",
        "diagonal",
    ]
)
"""Operations that only move numbers, copy them or drop them: applied to the forms themselves."""
SAME = frozenset(
    [
        "to",
        "float",
        "double",
        "half",
        "bfloat16",
        "type",
        "type_as",
        "cuda",
        "cpu",
        "identity",
        "alias",
        "requires_grad_",
    ]
)
"""Operations that change nothing but the type, the place or the book-keeping."""
CONSTANT = frozenset(
    [
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_tensor",
        "isfinite",
        "isnan",
        "isinf",
    ]
)
"""Operations whose result does not depend on the size of their inputs."""
LINEAR = frozenset(["neg", "negative"])
DIVISIONS = frozenset(["div", "divide", "true_divide", "__truediv__", "__rtruediv__", "__itruediv__"])
ADDITIONS = ["add", "sub", "subtract", "rsub", "__add__", "__radd__", "__sub__", "__rsub__", "__iadd__", "__isub__"]
PRODUCTS = ["mul", "multiply", "__mul__", "__rmul__", "__imul__"]
POOLS = [
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "pad",
    "interpolate",
]
