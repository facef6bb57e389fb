"""IdentityFormer and RandFormer, which timm lacks, against a computation written out here."""

import pytest
import torch
import torch.nn.functional as F
from timm_peer import build, randomise, relative_error

DEPTHS = {'s12': (2, 2, 6, 2), 's24': (4, 4, 12, 4)}


def layer_norm(x, weight):
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weight[None, :, None, None]


def group_norm(x, weight):
    mean = x.mean((1, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((1, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weight[None, :, None, None]


def reference_stages(state, x, depths):
    """arXiv:2210.13452, eq. 2, 3, 5, 15 and 17, from the tensors of a state dict."""
    x = F.conv2d(x, state['stem.0.conv.weight'], state['stem.0.conv.bias'], stride=4, padding=2)
    x = layer_norm(x, state['stem.0.post_norm.weight'])
    outs = []
    for i, depth in enumerate(depths):
        if i:
            x = layer_norm(x, state[f'stages.{i}.downsample.pre_norm.weight'])
            down = f'stages.{i}.downsample.conv'
            x = F.conv2d(x, state[f'{down}.weight'], state[f'{down}.bias'], stride=2, padding=1)
        for j in range(depth):
            block = {
                k.split('.', 4)[4]: v for k, v in state.items() if k.startswith(f'stages.{i}.blocks.{j}.')
            }
            residual1, residual2 = (
                block[f'res_scale{n}'][None, :, None, None] if i >= 2 else 1.0 for n in (1, 2)
            )
            mixed = group_norm(x, block['norm1.weight'])
            if 'token_mixer.random_matrix' in block:
                mixed = torch.einsum('mn,bcn->bcm', block['token_mixer.random_matrix'], mixed.flatten(2))
                mixed = mixed.reshape(x.shape)
            x = residual1 * x + mixed
            hidden = torch.einsum(
                'oc,bchw->bohw', block['mlp.fc1.weight'], group_norm(x, block['norm2.weight'])
            )
            hidden = block['mlp.act.scale'] * hidden.clamp(min=0) ** 2 + block['mlp.act.bias']
            x = residual2 * x + torch.einsum('oc,bchw->bohw', block['mlp.fc2.weight'], hidden)
        outs.append(x)
    return outs


@pytest.mark.parametrize('family', ['identityformer', 'randformer'])
@pytest.mark.parametrize('size', ['s12', 's24'])
def test_stages_equal_the_equations(family, size):
    model = build(f'{family}_{size}').eval()
    matrices = [m.clone() for n, m in model.state_dict().items() if n.endswith('random_matrix')]
    randomise(model)
    if family == 'randformer':
        assert len(matrices) == sum(DEPTHS[size][2:])
        for (_, matrix), drawn in zip(
            [(n, p) for n, p in model.named_parameters() if n.endswith('random_matrix')],
            matrices,
            strict=True,
        ):
            matrix.data.copy_(drawn)
    images = [torch.randn(2, 3, 224, 224)]
    if family == 'identityformer':
        images.append(torch.randn(1, 3, 75, 133))
    for image in images:
        with torch.no_grad():
            outs = model(image)
            expected = reference_stages(model.state_dict(), image, DEPTHS[size])
        for out, reference in zip(outs, expected, strict=True):
            assert relative_error(out, reference) <= 1e-4
