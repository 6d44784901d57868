"""Which of timm's families train in the channels-last memory order on a processor.

    python -m benchmarks.speed.memory_order

torch 2.14 ends a process ("double free or corruption") in the backward pass of fastvit_t8 in that order, which is the
quicker one and was every training's. So a small member of every family of timm takes forward and backward passes and
steps of AdamW in both orders, without weights, in a process of its own with limits of time and memory, under glibc's
checks of the heap: in evaluation mode, where both must give the same features and gradients, then in training, in
float32 and in bfloat16. Where all of it works, trainings use the order, as ``pseudolabel/models/memory_order.py`` says.
A family is a module of timm. Some have no maps for ``Backbone``, which says why.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.common import REPOSITORY, conditions, make_parser, module_of, report

MEMBERS: dict[str, tuple[str, ...]] = {
    "beit": ("beit_base_patch16_224",),
    "byoanet": ("halonet_h1",),
    "byobnet": ("mobileone_s1",),
    "cait": ("cait_xxs24_224",),
    "coat": ("coat_tiny",),
    "convit": ("convit_tiny",),
    "convmixer": ("convmixer_768_32",),
    "convnext": ("convnext_zepto_rms",),
    "cpubone": ("cpubone_nano",),
    "crossvit": ("crossvit_tiny_240",),
    "csatv2": ("csatv2",),
    "cspnet": ("cs3darknet_focus_s",),
    "cspnext": ("cspnext_tiny",),
    "davit": ("davit_tiny",),
    "deepseek_vit": ("deepseek_vit_412m",),
    "deit": ("deit_tiny_patch16_224",),
    "densenet": ("densenet121",),
    "dla": ("dla46x_c",),
    "dpn": ("dpn48b",),
    "edgenext": ("edgenext_xx_small",),
    "efficientformer": ("efficientformer_l1",),
    "efficientformer_v2": ("efficientformerv2_s0",),
    "efficientnet": ("mobilenetv2_035", "tf_efficientnet_lite0", "efficientnet_b0"),
    "efficientvim": ("efficientvim_m1",),
    "efficientvit_mit": ("efficientvit_b0",),
    "efficientvit_msra": ("efficientvit_m0",),
    "eva": ("vit_tiny_patch16_dinov3_qkvb",),
    "fasternet": ("fasternet_t0",),
    "fastvit": ("fastvit_t8",),
    "focalnet": ("focalnet_tiny_srf",),
    "gcvit": ("gcvit_xxtiny",),
    "gemma4_vit": ("gemma4_vit_167m",),
    "ghostnet": ("ghostnet_050",),
    "hardcorenas": ("hardcorenas_b",),
    "hgnet": ("hgnetv2_b0",),
    "hiera": ("hiera_tiny_224",),
    "hieradet_sam2": ("sam2_hiera_tiny",),
    "hrnet": ("hrnet_w18_small",),
    "iformer": ("iformer_t",),
    "inception_next": ("inception_next_atto",),
    "inception_resnet_v2": ("inception_resnet_v2",),
    "inception_v3": ("inception_v3",),
    "inception_v4": ("inception_v4",),
    "lcnetv2": ("lcnetv2_small",),
    "levit": ("levit_128s",),
    "lowformer": ("lowformer_b0",),
    "mambaout": ("mambaout_femto",),
    "maxxvit": ("maxvit_pico_rw_256",),
    "metaformer": ("poolformerv2_s12",),
    "mlp_mixer": ("gmlp_ti16_224",),
    "mobilenetv3": ("lcnet_035",),
    "mobilenetv5": ("mobilenetv5_base",),
    "mobilevit": ("mobilevit_xxs",),
    "mvitv2": ("mvitv2_tiny",),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap",),
    "nasnet": ("nasnetalarge",),
    "nest": ("nest_tiny",),
    "nextvit": ("nextvit_small",),
    "nfnet": ("nf_regnet_b0",),
    "pit": ("pit_ti_224",),
    "pnasnet": ("pnasnet5large",),
    "pvt_v2": ("pvt_v2_b0",),
    "qwen3_vit": ("qwen3_vit_88m",),
    "rdnet": ("rdnet_tiny",),
    "regnet": ("regnetx_002",),
    "repghost": ("repghostnet_050",),
    "repvit": ("repvit_m1",),
    "res2net": ("res2next50",),
    "resnest": ("resnest14d",),
    "resnet": ("resnet10t", "resnet50"),
    "resnetv2": ("resnetv2_18",),
    "rexnet": ("rexnet_100",),
    "selecsls": ("selecsls42",),
    "senet": ("legacy_seresnet18",),
    "sequencer": ("sequencer2d_s",),
    "shvit": ("shvit_s1",),
    "sknet": ("skresnet18",),
    "starnet": ("starnet_s050",),
    "swiftformer": ("swiftformer_xs",),
    "swin_transformer": ("swin_tiny_patch4_window7_224",),
    "swin_transformer_v2": ("swinv2_tiny_window16_256",),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224",),
    "tiny_vit": ("tiny_vit_5m_224",),
    "tnt": ("tnt_s_legacy_patch16_224",),
    "tresnet": ("tresnet_m",),
    "twins": ("twins_svt_small",),
    "vgg": ("vgg11",),
    "visformer": ("visformer_tiny",),
    "vision_transformer": ("vit_tiny_patch16_224",),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224",),
    "vision_transformer_relpos": ("vit_srelpos_small_patch16_224",),
    "vision_transformer_sam": ("samvit_base_patch16_224",),
    "vitamin": ("vitamin_small_224",),
    "volo": ("volo_d1_224",),
    "vovnet": ("ese_vovnet19b_slim_dw",),
    "xception": ("legacy_xception",),
    "xception_aligned": ("xception41p",),
    "xcit": ("xcit_nano_12_p8_224",),
}
"""By family: the smallest member by its parameters, and those that the documents name."""

_CHECKED = {
    "LD_PRELOAD": "libc_malloc_debug.so.0",
    "GLIBC_TUNABLES": "glibc.malloc.check=3",
    "OMP_NUM_THREADS": "1",
}
"""A write past the end of a block need not end the process otherwise."""

BATCH, LEAST_SIDE, ORDERS = 2, 64, ("usual", "channels_last")


def main() -> None:
    """Try every member and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--families", nargs="*", help="only these (default: all)")
    parser.add_argument("--seconds", type=int, default=240, help="limit of one member (default: 240)")
    parser.add_argument("--gigabytes", type=float, default=9, help="limit of one member's memory (default: 9)")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _CHECKED.items()):  # it has to be there from the start
        command = [sys.executable, "-m", module_of(__file__), *sys.argv[1:]]
        sys.exit(subprocess.run(command, check=False, cwd=REPOSITORY, env=os.environ | _CHECKED).returncode)
    import pseudolabel.models.backbone  # noqa: F401 - once, and not in each process

    found, members = conditions(), {}
    for family in arguments.families or MEMBERS:
        for name in MEMBERS[family]:
            members[name] = {"family": family, **outcome(name, arguments.seconds, arguments.gigabytes)}
            print(f"{family} {name}: {members[name]}", file=sys.stderr, flush=True)
    tried = {family: [row for row in members.values() if row["family"] == family] for family in MEMBERS}
    works = [name for name, rows in tried.items() if rows and all(row.get("channels_last") == "ok" for row in rows)]
    report(__file__, arguments, found, {"members": members, "families_in_channels_last": works}, [])


def outcome(name: str, seconds: int, gigabytes: float) -> dict[str, Any]:
    """What a member did: why it is refused, or for both orders ``ok`` or how the process ended."""
    with tempfile.TemporaryFile("w+") as output:
        process = multiprocessing.get_context("fork").Process(
            target=try_member, args=(name, gigabytes, output.fileno())
        )
        process.start()
        process.join(seconds)
        ended = f"over {seconds} s" if process.is_alive() else f"exit {process.exitcode}"
        process.kill()
        process.join()
        output.seek(0)
        lines = output.read().strip().split("\n")
    rows: dict[str, Any] = {}
    for line in lines:
        if line.startswith("{"):
            rows |= json.loads(line)
    missing = [order for order in ORDERS if order not in rows]
    if missing and "refused" not in rows:
        said = "" if lines[-1].startswith("{") else lines[-1][:160]
        rows[missing[0]] = f"{ended}: {said}" if said else ended
    return rows


def try_member(name: str, gigabytes: float, output: int) -> None:
    """Train one member a few steps in both orders, a JSON line for each that came to its end."""
    import resource

    import torch

    from pseudolabel.errors import InputError
    from pseudolabel.models.backbone import Backbone

    for stream in (1, 2):
        os.dup2(output, stream)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 1e9),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.manual_seed(0)
    try:
        network = Backbone(name)
    except InputError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        return
    side = math.ceil(LEAST_SIDE / network.stride) * network.stride
    print(json.dumps({"side": side}), flush=True)
    start = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(BATCH, network.in_chans, side, side)
    wanted: tuple[torch.Tensor, float] | None = None
    for order in ORDERS:
        layout = torch.channels_last if order == "channels_last" else torch.contiguous_format
        network.load_state_dict(start)
        network.to(memory_format=layout)
        given = images.contiguous(memory_format=layout)
        features, norm = passes(network.eval(), given)
        said = "ok"
        if wanted is None:
            wanted = features, norm
        elif not torch.allclose(features, wanted[0], rtol=1e-3, atol=1e-3 * float(wanted[0].abs().max())):
            said = f"other features, by up to {float((features - wanted[0]).abs().max()):.2g}"
        elif not math.isclose(norm, wanted[1], rel_tol=1e-2):
            said = f"another norm of the gradient, {norm:.4g} for {wanted[1]:.4g}"
        optimiser = torch.optim.AdamW(network.train().parameters(), lr=1e-5, fused=True)
        for mixed in (False, False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                passes(network, given)
            optimiser.step()
        print(json.dumps({order: said}), flush=True)


def passes(network: Any, images: Any) -> tuple[Any, float]:
    """Forward and backward: the features, and the norm of all gradients."""
    import torch

    network.zero_grad(set_to_none=True)
    features = network(images)[0]
    features.float().pow(2).mean().backward()
    norms = [parameter.grad.norm() for parameter in network.parameters() if parameter.grad is not None]
    return features.detach().float(), float(torch.stack(norms).norm())


if __name__ == "__main__":
    main()
