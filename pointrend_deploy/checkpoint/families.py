"""What kind of model a checkpoint is of, by the names of its parameters.

A kind is recognised by names that no other kind here has. Sources: the published checkpoints and
documentation of each library; detectron2 ``modeling/`` for its own meta-architectures.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from pointrend_deploy.errors import DeployError

POINT_HEAD = "sem_seg_head.point_head."


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        what: as a user would say it.
        tasks: tasks of the recipes it fits; empty where no recipe does.
        advice: which recipe to use, or what to do instead.
        parts: tasks of recipes that a part of it fits, the other tensors left out.
    """

    what: str
    tasks: tuple[str, ...]
    advice: str
    parts: tuple[str, ...] = ()


_LISTED = "export/README.md lists the recipes"
_INSTANCE = f"use a recipe whose `task` is `instance`; {_LISTED}"
_BACKBONE_ONLY = (
    "it is what training starts from; give the file training wrote, model_final.pth or .pkl"
)
_OPENMMLAB = (
    "train the model with detectron2; or rename its parameters to detectron2's, describe it in a "
    "recipe of your own (`pointrend-deploy recipes --show my_model`, or my_instance_model), and "
    "compare the answers with those of the original: OpenMMLab's layers may differ in more than "
    "their names"
)
_OTHER_LIBRARY = (
    "no recipe describes this library's models; a model that detectron2 trained is needed, "
    "with parameters such as backbone.fpn_lateral2.weight"
)
_NO_RECIPE = f"no recipe describes it; {_LISTED}"
_OTHER_NETWORK = f"no recipe describes this network; {_LISTED}"


def _foreign(what: str, *signs: str, advice: str = _OTHER_LIBRARY) -> tuple[tuple[str, ...], Kind]:
    return signs, Kind(what, (), advice)


_KINDS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    # Hugging Face transformers
    _foreign(
        "a Hugging Face transformers checkpoint (Mask2Former or MaskFormer)",
        r"(?:model\.)?pixel_level_module\.",
    ),
    _foreign("a Hugging Face transformers checkpoint (SegFormer)", r"(?:model\.)?segformer\."),
    _foreign(
        "a Hugging Face transformers checkpoint (DETR)", r"(?:model\.)?backbone\.conv_encoder\."
    ),
    _foreign(
        "a Hugging Face transformers checkpoint (ResNet)", r"(?:resnet\.)?embedder\.embedder\."
    ),
    _foreign(
        "a Hugging Face transformers checkpoint",
        r"(?:.*\.)?encoder\.layers?\.\d+\.(?:attention\.attention|blocks\.\d+\.attention\.self)\.",
    ),
    _foreign(
        "a DETR checkpoint", r"(?:detr\.)?transformer\.encoder\.", r"(?:detr\.)?class_embed\."
    ),
    # OpenMMLab
    _foreign(
        "an mmdetection checkpoint (PointRend)",
        r"roi_head\.point_head\.",
        advice=_OPENMMLAB,
    ),
    _foreign(
        "an mmdetection checkpoint (Cascade R-CNN)", r"roi_head\.bbox_head\.0\.", advice=_OPENMMLAB
    ),
    _foreign("an mmdetection checkpoint (Mask R-CNN)", r"roi_head\.mask_head\.", advice=_OPENMMLAB),
    _foreign("an mmdetection checkpoint", r"roi_head\.", advice=_OPENMMLAB),
    _foreign(
        "an mmdetection checkpoint", r"(?:bbox_head|panoptic_head|rpn_head)\.", advice=_OPENMMLAB
    ),
    _foreign("an mmdetection or mmsegmentation checkpoint", r"neck\.", advice=_OPENMMLAB),
    _foreign(
        "an mmsegmentation checkpoint (PointRend)",
        r"decode_head\.1\.fcs\.",
        advice=_OPENMMLAB,
    ),
    _foreign(
        "an mmsegmentation checkpoint", r"(?:decode_head|auxiliary_head)\.", advice=_OPENMMLAB
    ),
    # torchvision
    _foreign(
        "a torchvision Mask R-CNN checkpoint",
        r"backbone\.(?:body|fpn\.inner_blocks)\.",
        r"roi_heads\.mask_(?:head|predictor)\.",
        advice="no recipe describes it: beside the names, torchvision counts the background as "
        "class 0, where detectron2 has it last. A model that detectron2 trained is needed",
    ),
    _foreign("a torchvision detection checkpoint", r"backbone\.(?:body|fpn\.inner_blocks)\."),
    _foreign("a torchvision segmentation checkpoint", r"backbone\.", r"(?:aux_)?classifier\.\d"),
    # other libraries
    _foreign("an ultralytics YOLO checkpoint", r"(?:model\.)*\d+\.cv\d\.conv\."),
    _foreign("a segmentation_models_pytorch checkpoint", r"encoder\.", r"segmentation_head\."),
    # detectron2
    (
        (r"roi_heads\.mask_head\.parameter_head\.",),
        Kind(
            "an Implicit PointRend instance checkpoint",
            ("instance",),
            f"no recipe describes Implicit PointRend; {_LISTED}",
        ),
    ),
    _foreign(
        "a detectron2 Cascade R-CNN checkpoint (its box head has several stages)",
        r"roi_heads\.box_(?:head|predictor)\.0\.",
        advice=_NO_RECIPE,
    ),
    _foreign(
        "a detectron2 Faster or Mask R-CNN checkpoint of the C4 kind (without a pyramid)",
        r"roi_heads\.res5\.",
        advice=f"recipes describe models with a feature pyramid (FPN); {_LISTED}",
    ),
    _foreign(
        "a detectron2 MaskFormer or Mask2Former checkpoint",
        r"sem_seg_head\.(?:pixel_decoder|predictor\.(?:transformer|query))",
        advice=_OTHER_NETWORK,
    ),
    _foreign(
        "a detectron2 Panoptic-DeepLab checkpoint", r"ins_embed_head\.", advice=_OTHER_NETWORK
    ),
    _foreign(
        "a detectron2 DeepLab checkpoint (DeepLabV3 or V3+)",
        r"sem_seg_head\.(?:aspp|decoder)\.",
        advice=f"no recipe describes DeepLab; {_LISTED}",
    ),
    _foreign(
        "a detectron2 FCOS checkpoint",
        r"head\.(?:cls_subnet|ctrness)\.",
        r"head\.ctrness\.",
        advice=_OTHER_NETWORK,
    ),
    _foreign("a detectron2 RetinaNet checkpoint", r"head\.cls_subnet\.", advice=_OTHER_NETWORK),
    (
        (r"roi_heads\.mask_(?:head|point_head|coarse_head)\.", r"sem_seg_head\."),
        Kind(
            "a detectron2 Panoptic FPN checkpoint",
            (),
            "its instance part fits a recipe of task instance and its semantic part one of task "
            "semantic: choose one and give --ignore-extra, which leaves the other part out",
            ("instance", "semantic"),
        ),
    ),
    (
        (r"roi_heads\.mask_head\.point_head\.",),
        Kind("a PointRend instance checkpoint (PointRend R-CNN)", ("instance",), _INSTANCE),
    ),
    (
        (r"roi_heads\.mask_head\.",),
        Kind("a Mask R-CNN instance checkpoint", ("instance",), _INSTANCE),
    ),
    (
        (r"roi_heads\.(?:keypoint|densepose)_head\.",),
        Kind("a keypoint or DensePose detector's checkpoint, without masks", (), _NO_RECIPE),
    ),
    (
        (r"roi_heads\.",),
        Kind(
            "a box detector's checkpoint, without masks",
            (),
            f"recipes of task instance have a mask head; {_LISTED}",
        ),
    ),
    (
        (POINT_HEAD.replace(".", r"\."),),
        Kind(
            "a PointRend semantic checkpoint",
            ("semantic",),
            f"use a pointrend_semantic_fpn recipe; {_LISTED}",
        ),
    ),
    (
        (r"sem_seg_head\.",),
        Kind(
            "a SemanticFPN checkpoint without a point head",
            ("semantic",),
            f"use a semantic_fpn recipe; {_LISTED}",
        ),
    ),
    _foreign(
        "a detectron2 region proposal network, without heads",
        r"proposal_generator\.",
        advice=_NO_RECIPE,
    ),
    # backbones
    _foreign("an ImageNet backbone", r"stem\.conv1\.", r"res2\.0\.", advice=_BACKBONE_ONLY),
    _foreign(
        "a ResNet for ImageNet classification under the names that torchvision and timm use",
        r"conv1\.",
        r"layer1\.0\.",
        advice=_BACKBONE_ONLY,
    ),
    _foreign(
        "a timm EfficientNet or MobileNet backbone",
        r"conv_stem\.",
        r"blocks\.",
        advice=_BACKBONE_ONLY,
    ),
    _foreign(
        "a vision transformer backbone (ViT or Swin, as timm names its parameters)",
        r"patch_embed\.proj\.",
        r"(?:layers\.\d+\.)?blocks\.",
        advice=_BACKBONE_ONLY,
    ),
    _foreign(
        "a timm backbone (ConvNeXt or RegNet)",
        r"stem\.",
        r"(?:stages\.\d+\.blocks|s1\.b1)\.",
        advice=_BACKBONE_ONLY,
    ),
    _foreign(
        "a torchvision classification network",
        r"features\.\d+\.",
        r"classifier\.",
        advice=_BACKBONE_ONLY,
    ),
    _foreign("a backbone without heads", r"backbone\.", advice=_BACKBONE_ONLY),
)


def kind_of(names: Collection[str]) -> Kind:
    """Recognise a model by its parameter names: the first kind whose every sign occurs.

    Args:
        names: today's names, without a prefix that all have.
    """
    for signs, kind in _KINDS:
        if all(any(re.match(sign, name) for name in names) for sign in signs):
            return kind
    first = ", ".join(name[:60] for name in sorted(names)[:3])
    return Kind(
        f"no detectron2 model (its parameters are called {first}, ...)",
        (),
        "detectron2's parameter names are expected, such as backbone.fpn_lateral2.weight",
    )


def refuse_other_kinds(
    names: Collection[str], recipe_name: str, task: str, ignore_extra: bool = False
) -> None:
    """Refuse a checkpoint of another task than the recipe's.

    Args:
        names: as :func:`kind_of` takes them.
        recipe_name: of the recipe, for the message.
        task: of the recipe.
        ignore_extra: whether a part of the checkpoint is enough.

    Raises:
        DeployError: saying what the checkpoint is and which recipe to use.
    """
    kind = kind_of(names)
    if task in kind.tasks or (ignore_extra and task in kind.parts):
        return
    why = (
        f"; the recipe {recipe_name} is for {task} models"
        if kind.tasks or kind.parts
        else ", and no recipe fits it, of any task"
    )
    raise DeployError(f"the checkpoint is {kind.what}{why}", kind.advice)
