"""What training/ trains is what ComfyUI runs: the same results from the same weights, without any conversion."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor, nn

from dev.in_process import sampling
from dev.stand_ins.models import build_model
from dev.stand_ins.vae import build_vae
from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba, encode_rgba
from lib_layerdiffuse.comfyui.alpha.loading import offset_encoder, transparency_decoder
from lib_layerdiffuse.comfyui.models.families import AUTO, family_of, latent_family
from lib_layerdiffuse.comfyui.models.mini import MODEL, load_mini
from lib_layerdiffuse.comfyui.models.weight_files import own_weights
from lib_layerdiffuse.comfyui.recipes.joint import make_joint, make_joint_from_layer
from lib_layerdiffuse.comfyui.recipes.transparent import make_transparent
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets.attention_sharing import AttentionSharing
from lib_layerdiffuse.pixels.straight import on_grey
from lib_layerdiffuse.weights.catalogue import Family
from training import mini
from training.data.latents import SD15_SCALE
from training.data.procedural import layers
from training.data.tokens import clip_tokenizer, procedural_tokens, vocabulary
from training.encode import LatentEncoder
from training.loop import save_weights
from training.models.autoencoder import Autoencoder
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet
from training.stages.diffusion import sharing_for
from training.stages.transparency import TransparencyObjective, TransparencySettings, new_decoder, new_encoder

from .reference import as_the_host_runs

FP16 = 5e-3  # relative: the files hold fp16, and a text encoder may run in it

Mini = tuple[ModelPatcher, CLIP, VAE]


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


def rounded(module: nn.Module) -> nn.Module:
    """Weights as the files will hold them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.02 + parameter).copy_(parameter.half())
    return module.eval()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> mini.MiniFiles:
    """A whole family, untrained, saved by the training's own code."""
    torch.manual_seed(0)
    family = mini.MiniFiles(tmp_path_factory.mktemp("mini"), Path("unused"))
    autoencoder = rounded(Autoencoder(mini.AUTOENCODER))
    save_weights(autoencoder.state_dict(), family.path("vae"), {"group": str(mini.GROUP)})
    encoder = new_encoder(mini.OFFSET_WIDTHS)
    decoder = rounded(new_decoder(mini.DECODER_WIDTHS, (False, False, False, False, True), 4))
    objective = TransparencyObjective(autoencoder, encoder, decoder, lambda draws: (torch.empty(0), draws), TransparencySettings())
    save_weights(objective.encoder_weights(), family.path("transparent_encoder"))
    save_weights(decoder.state_dict(), family.path("transparent_decoder"))
    unet, text_encoder = rounded(UNet(mini.UNET)), rounded(TextEncoder(mini.UNET.context_dim, mini.TEXT_LAYERS, mini.TEXT_HEADS))
    mini.save_base(family, unet, text_encoder, procedural_tokens(list(vocabulary())).unique())
    for name, frames, control in (("transparent", 1, ()), ("joint", 3, ()), ("fg2bg", 2, mini.CONTROL_WIDTHS)):
        save_weights(rounded(sharing_for(unet, frames, mini.RANK, control)).state_dict(), family.path(name))
    return family


@pytest.fixture(scope="module")
def loaded(family: mini.MiniFiles) -> Mini:
    return load_mini(family.files)


def close(actual: Tensor, expected: Tensor, share: float = FP16) -> None:
    error = (actual.float() - expected.float()).abs().max()
    assert error < share * expected.abs().max(), f"off by {error:.3g} of {expected.abs().max():.3g}"


def test_autoencoder(family: mini.MiniFiles, loaded: Mini) -> None:
    picture = torch.rand(2, 64, 96, 3)
    autoencoder = family.autoencoder()
    mean, _ = autoencoder.posterior(picture.movedim(-1, 1) * 2 - 1)
    vae = loaded[2]
    close(vae.encode(picture), mean)
    close(vae.decode(mean), (autoencoder.decode(mean) / 2 + 0.5).clamp(0, 1).movedim(1, -1))


def test_text_encoder_and_words(family: mini.MiniFiles, loaded: Mini) -> None:
    captions = ["a red glass heart", "a glowing cyan cross on an orange wall, transparent", ""]
    expected = family.text_encoder()(procedural_tokens(captions))
    clip = loaded[1]
    for caption, text in zip(captions, expected, strict=True):
        close(clip.encode_from_tokens(clip.tokenize(caption)), text[None])


def test_words_have_their_numbers_in_clips_vocabulary() -> None:
    import comfy.sd1_clip

    tokenizer = clip_tokenizer(str(Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")))
    assert torch.equal(
        tokenizer(["a red glass heart on blue stripes, transparent"]), procedural_tokens(["a red glass heart on blue stripes, transparent"])
    )
    for word in vocabulary():
        assert torch.equal(tokenizer([word]), procedural_tokens([word])), word


def denoised(model: ModelPatcher, x: Tensor, t: int, text: Tensor) -> Tensor:
    """What the host takes for the clean latent."""
    sigma = model.model.model_sampling.sigma(torch.tensor([float(t)])).expand(len(x))
    with sampling(model, sigma) as predict:
        return predict(x, text)


def expected_denoised(unet: UNet, x: Tensor, sigma: Tensor, t: int, text: Tensor, **sharing: Any) -> Tensor:
    scaled = x / (1 + sigma**2).sqrt()
    velocity = unet(scaled, torch.full((len(x),), t), text, **sharing)
    return (scaled - sigma * velocity) / (1 + sigma**2).sqrt()


@pytest.mark.parametrize("name", ["base", "transparent", "joint", "fg2bg"])
def test_diffusion_model(family: mini.MiniFiles, loaded: Mini, name: str) -> None:
    model = loaded[0]
    unet, frames = family.unet(), {"base": 1, "transparent": 1, "joint": 3, "fg2bg": 2}[name]
    picture = torch.rand(1, 128, 128, 4)
    patched = {
        "base": lambda: model,
        "transparent": lambda: make_transparent(model),
        "joint": lambda: make_joint(model),
        "fg2bg": lambda: make_joint_from_layer(model, picture, "foreground"),
    }[name]()
    sharing = {}
    if name != "base":
        weights = {key: tensor.float() for key, tensor in mini.load_weights(family.path(name)).items()}
        sharing["sharing"] = AttentionSharing.from_state_dict(weights)
    if name == "fg2bg":
        sharing["control"] = (on_grey(picture).movedim(-1, 1) * 2 - 1).expand(2, -1, -1, -1)
    x, text = torch.randn(2 * frames, 4, 16, 16), torch.randn(2 * frames, 77, mini.UNET.context_dim)
    sigma = model.model.model_sampling.sigma(torch.tensor([400.0]))
    expected = expected_denoised(unet, x, sigma, 400, text, **sharing)
    close(denoised(patched, x, 400, text), expected, 2e-2 if name == "fg2bg" else FP16)
    if name != "base":
        plain = expected_denoised(unet, x, sigma, 400, text)
        assert (plain - expected).abs().max() > 0.05 * expected.abs().max(), "the patch changes too little to test anything"


def test_latents_with_alpha(family: mini.MiniFiles, loaded: Mini) -> None:
    """What the diffusion model is trained on is what the nodes encode."""
    vae = loaded[2]
    rgba = layers(2, 128, torch.Generator().manual_seed(0)).foreground
    expected = LatentEncoder(family.autoencoder(), family.offset_encoder(), SD15_SCALE, cpu=True).transparent(rgba).float() / SD15_SCALE
    latent = encode_rgba(vae, offset_encoder(vae, Family.SD15), rgba.movedim(1, -1))
    close(latent, expected)
    decoder = transparency_decoder(vae, Family.SD15)
    assert decode_rgba(decoder, vae.decode(latent), latent).shape == (2, 128, 128, 4)


def test_other_models_have_no_weights_of_their_own_and_the_log_stays_empty(caplog: pytest.LogCaptureFixture) -> None:
    assert own_weights(None) is own_weights(build_vae("SDXL", 0)) is own_weights(build_model("SDXL", 0).model.model_config) is None
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


def test_it_counts_as_sd15_with_weights_of_its_own(family: mini.MiniFiles, loaded: Mini, tmp_path: Path) -> None:
    model, _, vae = loaded
    assert family_of(model) is family_of(model.clone()) is Family.SD15
    assert latent_family(AUTO, vae) == latent_family(str(Family.SDXL), vae) == (Family.SD15, None)
    with pytest.raises(DiaphaneError, match="no weights for: background -> foreground"):
        make_joint_from_layer(model, torch.rand(1, 128, 128, 4), "background")
    with pytest.raises(DiaphaneError, match=f"{MODEL}.safetensors is missing. Install the pack again"):
        load_mini(tmp_path)
