"""Vision transformers for faces, InsightFace layout, also CVLface's: no class token, every token embedded."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marginface.backbones.blocks import Backbone, DropPath, in_weight_precision
from marginface.errors import InputError

# Shapes: N images, L tokens, K kept tokens, D width


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017); query, key and value without bias."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_NLD: Tensor) -> Tensor:
        N, L, D = x_NLD.shape
        qkv = self.qkv(x_NLD).view(N, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(N, L, D))
        return out


class MLP(nn.Module):
    """Two linear layers with ReLU6 between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.relu6(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and added to its input."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.drop_path = DropPath(drop_path)
        self.mlp = MLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        branch: Tensor = self.drop_path(self.mlp(self.norm2(x)))
        return x + branch


class PatchEmbed(nn.Module):
    """One token for each patch; what is left over at the right and the bottom is not seen."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x)
        return tokens.flatten(2).transpose(1, 2)


class ViT(Backbone):
    """Vision transformer for 112x112 faces.

    dim, depth: width and number of blocks. heads, mlp_ratio: of each block.
    patch_size: 9 leaves the last four rows and columns unseen; CVLface uses 8.
    mask_ratio: share of the tokens dropped in training, replaced by a learned token after the last block;
        0 keeps the token but drops none; None has no such token (CVLface).
    drop_path: stochastic depth of the last block, rising from 0 at the first.
    """

    stem_parts = ("patch_embed", "pos_embed")
    embedding_parts = ("feature",)

    def __init__(
        self,
        dim: int,
        depth: int,
        num_features: int = 512,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        patch_size: int = 9,
        mask_ratio: float | None = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__(num_features)
        if dim % heads:
            raise InputError(f"heads is {heads}, which does not divide the transformer's width {dim}")
        self.mask_ratio = mask_ratio
        tokens = (self.image_size[0] // patch_size) * (self.image_size[1] // patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        if mask_ratio is not None:
            # not learned where no token is dropped, or DistributedDataParallel would wait for its gradient
            self.mask_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=mask_ratio > 0)
        self.patch_embed = PatchEmbed(dim, patch_size)
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio, drop_path * i / max(depth - 1, 1)) for i in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.feature = nn.Sequential(
            nn.Linear(dim * tokens, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
            nn.Linear(dim, num_features, bias=False),
            nn.BatchNorm1d(num_features, eps=2e-5),
        )
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.mask_ratio is not None:
            nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x_NLD = self.patch_embed(x) + self.pos_embed
        if self.training and self.mask_ratio:
            order_NL = torch.rand(x_NLD.shape[:2], device=x.device).argsort(1)
            x_NLD = self._restore(self._blocks(self._keep(x_NLD, order_NL)), order_NL)
        else:
            x_NLD = self._blocks(x_NLD)
        return in_weight_precision(tuple(self.feature), x_NLD.flatten(1))

    def _blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    def _keep(self, x_NLD: Tensor, order_NL: Tensor) -> Tensor:
        """The first tokens of a random order."""
        kept = int(x_NLD.shape[1] * (1 - (self.mask_ratio or 0)))
        return x_NLD.gather(1, order_NL[:, :kept, None].expand(-1, -1, x_NLD.shape[2]))

    def _restore(self, x_NKD: Tensor, order_NL: Tensor) -> Tensor:
        """Every kept token back to its place, the mask token in the places that were dropped."""
        N, K, D = x_NKD.shape
        masks = self.mask_token.to(x_NKD.dtype).expand(N, order_NL.shape[1] - K, D)
        return torch.cat([x_NKD, masks], 1).gather(1, order_NL.argsort(1)[..., None].expand(-1, -1, D))
