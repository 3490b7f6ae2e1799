"""Models of other libraries and architectures are named, and prefixes are taken off."""

from __future__ import annotations

import pytest
import torch

from pointrend_deploy.checkpoint.families import kind_of
from pointrend_deploy.checkpoint.fit import fit_checkpoint
from pointrend_deploy.checkpoint.prefixes import bare
from pointrend_deploy.checkpoint.read import Weights
from pointrend_deploy.errors import DeployError
from tests.checkpoint.checkpoints import BASE, checkpoint_of, fit, refusal, shapes_of


@pytest.mark.parametrize(
    ("what", "names"),
    [
        (
            "mmdetection checkpoint (PointRend)",
            "backbone.layer1.0.conv1.weight neck.lateral_convs.0.conv.weight "
            "roi_head.bbox_head.fc_cls.weight roi_head.point_head.fcs.0.conv.weight",
        ),
        (
            "mmdetection checkpoint (Mask R-CNN)",
            "neck.fpn_convs.0.conv.weight roi_head.mask_head.convs.0.conv.weight",
        ),
        (
            "mmsegmentation checkpoint (PointRend)",
            "backbone.layer1.0.conv1.weight decode_head.0.scale_heads.0.0.conv.weight "
            "decode_head.1.fcs.0.conv.weight",
        ),
        (
            "torchvision Mask R-CNN",
            "backbone.body.conv1.weight backbone.fpn.inner_blocks.0.0.weight "
            "roi_heads.mask_head.mask_fcn1.weight roi_heads.mask_predictor.conv5_mask.weight",
        ),
        (
            "torchvision segmentation",
            "backbone.conv1.weight classifier.0.convs.0.0.weight aux_classifier.0.weight",
        ),
        ("torchvision and timm use", "conv1.weight bn1.weight layer1.0.conv1.weight fc.weight"),
        ("ultralytics", "model.0.conv.weight model.22.cv2.0.0.conv.weight model.2.cv1.conv.weight"),
        ("SegFormer", "segformer.encoder.patch_embeddings.0.proj.weight decode_head.linear.weight"),
        ("segmentation_models_pytorch", "encoder.conv1.weight segmentation_head.0.weight"),
        (
            "Cascade R-CNN",
            "backbone.fpn_lateral2.weight roi_heads.box_head.0.fc1.weight "
            "roi_heads.mask_head.mask_fcn1.weight",
        ),
        ("RetinaNet", "backbone.fpn_lateral3.weight head.cls_subnet.0.weight"),
        (
            "Panoptic FPN",
            "roi_heads.mask_head.mask_fcn1.weight sem_seg_head.p2.0.weight",
        ),
        ("DeepLab", "backbone.res2.0.conv1.weight sem_seg_head.decoder.res2.project_conv.weight"),
        ("Implicit PointRend", "roi_heads.mask_head.parameter_head.fc1.weight"),
        ("no detectron2 model", "net.a.weight net.b.weight"),
    ],
)
def test_a_model_of_another_kind_is_named(what: str, names: str) -> None:
    kind = kind_of(names.split())
    assert what in kind.what
    assert "semantic" not in kind.tasks
    message = refusal({name: torch.zeros(1) for name in names.split()}).message
    assert what in message


def test_foreign_names_under_training_prefixes() -> None:
    names = bare(["module.model.neck.lateral_convs.0.conv.weight", "module.model.bbox_head.weight"])
    assert names.prefix == "module.model."
    assert "mmdetection" in kind_of(names.originals).what


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "model._orig_mod.", "_orig_mod.module.model.", "net."],
)
def test_prefixes_of_training_tools(prefix: str) -> None:
    tensors = checkpoint_of(BASE)
    given = {prefix + name: value for name, value in tensors.items()}
    fitted = fit_checkpoint(Weights(given), shapes_of(BASE), BASE)
    assert fitted.prefix == prefix
    assert list(fitted.tensors) == list(shapes_of(BASE))


def test_wrappers_inside_names() -> None:
    given = {
        name.replace("backbone.", "backbone._orig_mod.", 1): value
        for name, value in checkpoint_of(BASE).items()
    }
    assert list(fit(given)) == list(shapes_of(BASE))
    name = "sem_seg_head.point_head.fc1.weight"
    twice = checkpoint_of(BASE) | {name.replace("fc1", "fc1._orig_mod"): torch.zeros(1)}
    assert f"the checkpoint has {name} twice" in refusal(twice).message


def test_extra_tensors_can_be_left_out() -> None:
    tensors = checkpoint_of(BASE) | {"criterion.empty_weight": torch.zeros(4)}
    found = refusal(tensors)
    assert "1 that the model has no place for: criterion.empty_weight" in found.message
    assert "--ignore-extra" in found.hint
    fitted = fit_checkpoint(Weights(tensors), shapes_of(BASE), BASE, ignore_extra=True)
    assert fitted.ignored == ("criterion.empty_weight",)


@pytest.mark.parametrize(
    "name",
    [
        "sem_seg_head.point_head.fc4.weight",
        "sem_seg_head.coarse_sem_seg_head.p5.6.weight",
        "backbone.bottom_up.res2.0.conv4.weight",
        "backbone.fpn_lateral2.norm.weight",
    ],
)
def test_a_layer_inside_a_part_of_the_model_is_never_left_out(name: str) -> None:
    tensors = checkpoint_of(BASE) | {name: torch.zeros(4)}
    with pytest.raises(DeployError) as caught:
        fit_checkpoint(Weights(tensors), shapes_of(BASE), BASE, ignore_extra=True)
    assert name in caught.value.message
    assert not caught.value.hint.startswith("all else fits")
