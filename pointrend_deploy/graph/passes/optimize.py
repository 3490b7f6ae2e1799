"""Fold constants and simplify a traced graph, with onnxscript's passes."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir
from onnx_ir.passes import PassManager, Sequential, common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

ROUNDS: Final = 2
"""Most times that constants are folded and the rules applied."""
RULES: Final = (
    *rules.mul_by_1_rule.commute(),
    *rules.add_0_rule.commute(),
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.min_min_rule,
    rules.max_max_rule,
    rules.min_max_rule,
    rules.max_min_rule,
    rules.successive_clip_relu_rule,
    rules.successive_relu_clip_rule,
    rules.successive_relu_rule,
    rules.successive_clip_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.no_op_dynamic_scatter_nd_rule,
    rules.no_op_static_scatter_nd_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)
"""onnxscript's own, in its order, without those of quantised ops and of Dropout, which no traced
model in eval mode has, and without the one that makes a Split of two Slices: it compares every
Slice with every other one, which took a quarter of the tracing of a graph of 1300 nodes, and
found nothing."""


class _FoldConstants(ir.passes.InPlacePass):
    """onnxscript's constant folding as one of several passes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(
            model, fold_constants(model, onnx_shape_inference=True).modified
        )


def optimize(model: ir.Model) -> None:
    """Simplify a traced model in place.

    before: calls of torch's function bodies, chains of shape arithmetic, batch normalisations
    after:  standard ops, constants as initializers, batch normalisations folded into convolutions,
            equal values computed once, nothing that no output needs
    """
    round_of_passes = [
        _FoldConstants(),
        RewritePass(RULES),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
    ]
    Sequential(
        common.InlinePass(),
        PassManager(round_of_passes, steps=ROUNDS, early_stop=True),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)
